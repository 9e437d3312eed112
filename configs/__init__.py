"""One file a runnable configuration; `base` holds every key, with its meaning."""
