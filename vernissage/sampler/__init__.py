"""The sampler: spends a diffusion model's network evaluations where they pay."""
