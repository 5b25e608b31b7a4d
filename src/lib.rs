//! Drumline.
