#![no_main]

use libfuzzer_sys::fuzz_target;
use relayered_ecdsa_fuzz::batch;

fuzz_target!(|data: &[u8]| {
    batch(data);
});
