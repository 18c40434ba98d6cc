#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_protocol_fuzz::syntax;

fuzz_target!(|data: &[u8]| syntax(data));
