"""What a server of predictions is made of, without a web framework."""
