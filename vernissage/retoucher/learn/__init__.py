"""The juror, the environment, the policy and their training."""
