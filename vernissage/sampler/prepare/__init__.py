"""Makes the datasets: pictures by class, and fixed noises with their many-step endpoints."""
