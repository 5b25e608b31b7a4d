//! Verification of tokens that a shard does not verify itself: asymmetric signatures, and keys that
//! come from a JSON Web Key Set.
//!
//! Owns the fetched key sets and the threads that verify. Never decides what a token permits.

mod remote_key_set;
mod remote_key_sets;
pub mod verifier;
