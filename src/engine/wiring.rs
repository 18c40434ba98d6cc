//! Starts and stops the threads of the engine.
