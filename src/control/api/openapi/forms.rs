//! What the types of parameters don't tell: the form of names and cursors, and which bodies can be
//! empty. A parameter has one form wherever its name stands.

use serde_json::{Map, Value, json};

use crate::api::page::{self, List};

const LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const DID: &str = "^did:[a-z]+:[A-Za-z0-9._:%-]*[A-Za-z0-9._-]$";
const TID: &str = "^[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}$";
const CID: &str = "^baf[yk]rei[a-h][a-z2-7]{50}[aeimquy4]$";
const RECORD_KEY: &str = "^[A-Za-z0-9_~:-][A-Za-z0-9._~:-]*$";
const DOMAIN: &str = "^[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63}){0,3}$";
const DOMAIN_PATTERN: &str = "^(\\*\\.)?[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63}){0,2}$";

/// The form of a parameter: a regular expression, and characters at most.
fn form(path: &str, name: &str) -> Option<(String, u64)> {
    let fixed = |pattern: &str, max| Some((pattern.to_owned(), max));
    match name {
        "did" => fixed(DID, 2048),
        "host" | "hostname" => {
            let name = format!("({LABEL}\\.)+[A-Za-z]([A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?");
            Some((format!("^(https://)?({name}|localhost:[1-9][0-9]{{0,3}})$"), 253))
        }
        "domain" if path.contains("TrustedDomain") => fixed(DOMAIN_PATTERN, 253),
        "domain" => fixed(DOMAIN, 253),
        "collection" => {
            let first = "[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
            Some((format!("^{first}(\\.{LABEL})+\\.[A-Za-z][A-Za-z0-9]{{0,62}}$"), 317))
        }
        "rkey" => fixed(RECORD_KEY, 512),
        "since" => fixed(TID, 13),
        "cid" | "cids" => fixed(CID, 59),
        "cursor" => Some((cursor_form(path)?, 12)),
        _ => None,
    }
}

fn cursor_form(path: &str) -> Option<String> {
    let list = match path.rsplit(['/', '.']).next()? {
        "listHosts" => List::Hosts,
        "listRepos" => List::Repos,
        "listReposByCollection" => List::ReposByCollection,
        "takedowns" => List::Takedowns,
        "audit" => List::Audit,
        _ => return None,
    };
    Some(page::pattern(list))
}

/// Fills in the document.
pub(super) fn complete(document: &mut Value) {
    let mut bodies = Vec::new();
    for (path, item) in members(document.pointer_mut("/paths")) {
        for (_, operation) in members(Some(item)) {
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or_default().to_owned();
                constrain(&mut parameter["schema"], path, &name);
            }
            let reference = operation.pointer("/requestBody/content/application~1json/schema/$ref");
            let name = reference.and_then(Value::as_str).and_then(|text| text.rsplit('/').next());
            if let Some(name) = name.map(str::to_owned) {
                operation["requestBody"]["required"] = (name != "RetryInput").into();
                bodies.push((path.clone(), name));
            }
        }
    }
    for (path, name) in bodies {
        let Some(schema) = document.pointer_mut(&format!("/components/schemas/{name}")) else {
            continue;
        };
        for (name, property) in members(schema.get_mut("properties")) {
            constrain(property, &path, name);
        }
        if ["SettingsPatch", "ChangeLimitsInput"].contains(&&*name) {
            schema["anyOf"] = one_at_least(schema.get("properties"));
        }
    }
}

fn members(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flat_map(Map::iter_mut)
}

fn constrain(schema: &mut Value, path: &str, name: &str) {
    let Some((pattern, max)) = form(path, name) else { return };
    let text = if schema["type"] == "array" { &mut schema["items"] } else { schema };
    text["pattern"] = pattern.into();
    text["maxLength"] = max.into();
}

/// Something must be changed: one of the properties is there, and not null.
fn one_at_least(properties: Option<&Value>) -> Value {
    let names = properties.and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let there = |name: &String| json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } });
    names.filter(|name| *name != "host").map(there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_have_the_form_that_the_document_tells() {
        for list in
            [List::Hosts, List::Repos, List::ReposByCollection, List::Takedowns, List::Audit]
        {
            // ^(A[Q-X][…]{10})?$, with the second character's class written out.
            let pattern = page::pattern(list);
            let (first, class) = pattern.strip_prefix("^(").unwrap().split_once('[').unwrap();
            let class = class.split_once(']').unwrap().0;
            for number in [0, 1, 1 << 40, i64::MAX as u64] {
                let cursor = page::cursor(list, number);
                assert_eq!(cursor.len(), 12);
                assert!(cursor.starts_with(first), "{cursor} {pattern}");
                assert!(class.contains(&cursor[1..2]), "{cursor} {pattern}");
            }
        }
    }

    #[test]
    fn forms_are_told_of_parameters_and_bodies() {
        let mut document = json!({
            "paths": { "/admin/pds/changeLimits": { "post": {
                "parameters": [{ "name": "cids", "schema": { "type": "array", "items": {} } }],
                "requestBody": { "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/ChangeLimitsInput" }
                } } }
            } } },
            "components": { "schemas": { "ChangeLimitsInput": {
                "properties": { "host": {}, "per_day": {} }
            } } }
        });
        complete(&mut document);
        let operation = &document["paths"]["/admin/pds/changeLimits"]["post"];
        assert_eq!(operation["parameters"][0]["schema"]["items"]["pattern"], CID);
        assert_eq!(operation["requestBody"]["required"], true);
        let schema = &document["components"]["schemas"]["ChangeLimitsInput"];
        assert_eq!(schema["properties"]["host"]["maxLength"], 253);
        assert_eq!(schema["anyOf"][0]["required"], json!(["per_day"]));
        assert_eq!(schema["anyOf"].as_array().unwrap().len(), 1);
    }
}
