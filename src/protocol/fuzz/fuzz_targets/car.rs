#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_protocol_fuzz::car;

fuzz_target!(|data: &[u8]| car(data));
