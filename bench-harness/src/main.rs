//! The harness on the command line.

fn main() {}
