//! One integration binary with its own harness.
