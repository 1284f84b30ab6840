"""The material: roles and block states, structures and their files, anatomy, plans and the language of prompts."""
