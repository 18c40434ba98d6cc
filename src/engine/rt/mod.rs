//! The only module that knows the runtime.
