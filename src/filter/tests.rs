//! Parsing, compiling and running filters.
