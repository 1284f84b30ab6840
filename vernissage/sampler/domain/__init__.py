"""The material: denoisers, noise schedules, solvers and the programs made of them."""
