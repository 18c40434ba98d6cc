#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_protocol_fuzz::inversion;

fuzz_target!(|data: &[u8]| inversion(data));
