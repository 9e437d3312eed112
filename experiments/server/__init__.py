"""What `experiments.serve` is made of: connections, requests, answers and the page."""
