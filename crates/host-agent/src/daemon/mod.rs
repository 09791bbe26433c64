//! The daemon: who may ask, which build runs when, what limits it.
