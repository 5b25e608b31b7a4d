//! Drumline.

pub mod preflight;
