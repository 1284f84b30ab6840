"""The embedded denoiser, fitted programs, the decision process and its training."""
