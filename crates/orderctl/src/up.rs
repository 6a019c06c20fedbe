//! up
