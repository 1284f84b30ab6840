"""The material: sliders, rendering, recipes, faults and the measures of a photograph."""
