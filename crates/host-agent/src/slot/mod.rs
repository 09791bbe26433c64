//! A slot: one hermetic place for one build.
