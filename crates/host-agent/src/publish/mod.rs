//! From what a builder left behind to what a store may hold: ownership and type checks, canonical form, NAR hash and
//! references in one pass over the data.
