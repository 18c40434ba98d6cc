#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_protocol_fuzz::did_doc;

fuzz_target!(|data: &[u8]| did_doc(data));
