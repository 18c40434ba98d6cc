#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_protocol_fuzz::commit;

fuzz_target!(|data: &[u8]| commit(data));
