"""The programs; they may import `dwa_jax`, never the other way round."""
