//! DIDs and DID documents of simulated accounts.

use data_encoding::BASE32_NOPAD;
use ecdsa::VerifyingKey;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Bytes of the hash that make the 24 base32 characters of a did:plc.
const PLC_ID_BYTES: usize = 15;

/// A DID of the form that the PLC directory gives out: `did:plc:` and 24 characters of a hash.
pub fn plc_did(seed: u64, index: u64) -> String {
    let digest = Sha256::digest(format!("loadgen account {seed} {index}"));
    let id = BASE32_NOPAD.encode(&digest[..PLC_ID_BYTES]).to_lowercase();
    format!("did:plc:{id}")
}

/// The document as the PLC directory answers it. `pds` is a URL without a path.
pub fn did_document(did: &str, handle: &str, key: &VerifyingKey, pds: &str) -> String {
    let did_key = protocol::key::did_key_string(key);
    let multibase = did_key.strip_prefix("did:key:").unwrap_or(&did_key);
    json!({
        "@context": [
            "https://www.w3.org/ns/did/v1",
            "https://w3id.org/security/multikey/v1",
        ],
        "id": did,
        "alsoKnownAs": [format!("at://{handle}")],
        "verificationMethod": [{
            "id": format!("{did}#atproto"),
            "type": "Multikey",
            "controller": did,
            "publicKeyMultibase": multibase,
        }],
        "service": [{
            "id": "#atproto_pds",
            "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": pds,
        }],
    })
    .to_string()
}
