"""Whether a model still fits: later texts beside those that it was trained on."""
