"""Networks, their training, and the samplers that build with them."""
