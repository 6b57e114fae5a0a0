//! The only unsafe code, each use with its SAFETY argument.
