"""What every room shares: errors, typed params, seeds, devices, files, pictures, progress. Knows nobody."""
