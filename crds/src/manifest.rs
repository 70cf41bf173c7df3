//! The `CustomResourceDefinition` as it is installed: the derived one, and what the derive cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::UploadSession;

/// Longest list, map and string in types that are Kubernetes' own and have no maximum (affinity, tolerations, conditions).
const FOREIGN_LIST_LIMIT: u64 = 64;
const FOREIGN_STRING_LIMIT: u64 = 1024;

/// The definition of `uploadsessions.blobferry.io`.
///
/// # Panics
///
/// When the derived definition is no JSON object; a test would have seen it.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(UploadSession::crd()).expect("a definition is JSON");
    crd["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let status = &mut schema["properties"]["status"];
    status["default"] = json!({"observedGeneration": -1});
    for atomic in ["progress", "activity"] {
        status["properties"][atomic]["x-kubernetes-map-type"] = json!("atomic");
    }
    amend(schema);
    name_defaults(&mut schema["properties"]["spec"]);
    serde_json::from_value(crd).expect("the amended definition is one")
}

/// The definition as YAML, with a first line that says where it comes from.
pub fn yaml() -> Result<String, serde_norway::Error> {
    let mut crd = serde_norway::to_value(definition())?;
    if let Some(crd) = crd.as_mapping_mut() {
        crd.remove("status");
    }
    Ok(format!("# Generated from the Rust types by `make generate`; do not edit.\n{}", serde_norway::to_string(&crd)?))
}

/// Gives every string, list and map of `schema` a maximum unless it has one, so that the API server can estimate the cost of rules,
/// and takes `nullable` away, so that an explicit null is pruned and `has()` in a rule means a value.
fn amend(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = unwrapped(text);
    }
    match object.get("type").and_then(Value::as_str) {
        Some("string") if !object.contains_key("enum") => {
            object.entry("maxLength").or_insert_with(|| FOREIGN_STRING_LIMIT.into());
        }
        Some("array") => {
            object.entry("maxItems").or_insert_with(|| FOREIGN_LIST_LIMIT.into());
        }
        Some("object") if object.contains_key("additionalProperties") => {
            object.entry("maxProperties").or_insert_with(|| FOREIGN_LIST_LIMIT.into());
        }
        _ => {}
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            amend(inner);
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(amend);
    }
}

/// `text` with one line per paragraph: `kubectl explain` breaks lines itself.
fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

/// Adds the default of each field below `schema` to its description, because `kubectl explain` does not show it.
fn name_defaults(schema: &mut Value) {
    for field in schema["properties"].as_object_mut().into_iter().flat_map(|properties| properties.values_mut()) {
        name_defaults(field);
        if let (Some(default), Some(text)) = (default_text(&field["default"]), field["description"].as_str()) {
            field["description"] = format!("{text} Default: {default}.").into();
        }
    }
}

/// A default as a person writes it; none for what is empty or a whole section.
fn default_text(default: &Value) -> Option<String> {
    match default {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(default.to_string()),
        Value::Array(items) if !items.is_empty() => Some(items.iter().filter_map(default_text).collect::<Vec<_>>().join(", ")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_manifest_is_current() {
        let committed = include_str!("../uploadsessions.yaml");
        assert!(committed == yaml().unwrap(), "crds/uploadsessions.yaml has drifted: run `make generate`");
    }

    fn unbounded(path: &str, schema: &Value, found: &mut Vec<String>) {
        let limit = match schema["type"].as_str() {
            Some("string") if schema.get("enum").is_none() => "maxLength",
            Some("array") => "maxItems",
            Some("object") if schema.get("additionalProperties").is_some() => "maxProperties",
            _ => "description",
        };
        if limit != "description" && schema.get(limit).is_none() {
            found.push(path.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(&format!("{path}.{name}"), inner, found);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key) {
                unbounded(&format!("{path}[]"), inner, found);
            }
        }
    }

    #[test]
    fn every_string_list_and_map_has_a_maximum() {
        let crd = serde_json::to_value(definition()).unwrap();
        let mut found = Vec::new();
        unbounded("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_field_of_ours_is_described() {
        fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if inner["description"].as_str().is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                undescribed(&path, inner, found);
            }
        }
        let crd = serde_json::to_value(definition()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut found = Vec::new();
        undescribed("spec", &schema["spec"], &mut found);
        undescribed("status", &schema["status"], &mut found);
        found.retain(|path| !path.starts_with("spec.pod.affinity."));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn explanations_name_the_default_and_have_no_line_breaks_of_ours() {
        let crd = serde_json::to_value(definition()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let ignore = spec["watch"]["properties"]["ignore"]["description"].as_str().unwrap();
        assert!(ignore.ends_with("Default: .*, *.tmp, *.part, *.partial, *~."), "{ignore}");
        assert!(!spec["sessionName"]["description"].as_str().unwrap().contains('\n'));
        assert!(!spec["pod"]["description"].as_str().unwrap().contains("Default"));
    }

    #[test]
    fn conditions_merge_by_type_and_progress_is_atomic() {
        let crd = serde_json::to_value(definition()).unwrap();
        let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(status["properties"]["conditions"]["x-kubernetes-list-map-keys"], json!(["type"]));
        assert_eq!(status["properties"]["progress"]["x-kubernetes-map-type"], "atomic");
        assert_eq!(status["properties"]["activity"]["x-kubernetes-map-type"], "atomic");
        assert_eq!(status["default"], json!({"observedGeneration": -1}));
    }
}
