#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_protocol_fuzz::key;

fuzz_target!(|data: &[u8]| key(data));
