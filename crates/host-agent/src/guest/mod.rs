//! What runs inside a slot: Darling, or the stand-in for machines without it.
