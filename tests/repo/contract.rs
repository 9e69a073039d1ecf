//! The contract explains itself: each message, field, oneof, enum, value, service and RPC has a comment.

use muster_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Numbers of fields in descriptor.proto, of which the paths of source locations consist.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_MESSAGE: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const MESSAGE_ONEOF: i32 = 8;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

#[test]
fn everything_in_the_contract_has_a_comment() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let (mut checked, mut missing) = (0, Vec::new());
    for file in set.file.iter().filter(|file| file.package() == "muster.v1") {
        for (path, name) in named(file) {
            checked += 1;
            if !has_comment(file, &path) {
                missing.push(format!("{}: {name}", file.name()));
            }
        }
    }
    assert!(checked > 400, "only {checked} names were found");
    assert!(missing.is_empty(), "without a comment:\n{}", missing.join("\n"));
}

#[test]
fn no_name_of_the_contract_says_its_unit_twice_or_not_at_all() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut wrong = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "muster.v1") {
        for message in &file.message_type {
            for field in &message.field {
                let is_time = field.type_name() == ".google.protobuf.Timestamp";
                if is_time && !field.name().ends_with("time") && field.name() != "known" {
                    wrong.push(format!("{}.{}", message.name(), field.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "a time is named so: {wrong:?}");
}

fn named(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut all = Vec::new();
    for (index, message) in (0..).zip(&file.message_type) {
        named_in_message(message, vec![FILE_MESSAGE, index], "", &mut all);
    }
    for (index, values) in (0..).zip(&file.enum_type) {
        named_in_enum(values, vec![FILE_ENUM, index], "", &mut all);
    }
    for (index, service) in (0..).zip(&file.service) {
        let path = vec![FILE_SERVICE, index];
        for (index, method) in (0..).zip(&service.method) {
            let name = format!("{}.{}", service.name(), method.name());
            all.push((below(&path, SERVICE_METHOD, index), name));
        }
        all.push((path, service.name().to_owned()));
    }
    all
}

fn named_in_message(message: &DescriptorProto, path: Vec<i32>, outer: &str, all: &mut Vec<(Vec<i32>, String)>) {
    // The entries of a map are messages that nobody wrote.
    if message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
        return;
    }
    let name = format!("{outer}{}", message.name());
    for (index, field) in (0..).zip(&message.field) {
        all.push((below(&path, MESSAGE_FIELD, index), format!("{name}.{}", field.name())));
    }
    for (index, oneof) in (0..).zip(&message.oneof_decl) {
        // An optional field is in a oneof of its own, which nobody wrote.
        let is_written =
            |field: &prost_types::FieldDescriptorProto| field.oneof_index == Some(index) && !field.proto3_optional();
        if !message.field.iter().any(is_written) {
            continue;
        }
        all.push((below(&path, MESSAGE_ONEOF, index), format!("{name}.{}", oneof.name())));
    }
    for (index, nested) in (0..).zip(&message.nested_type) {
        named_in_message(nested, below(&path, MESSAGE_MESSAGE, index), &format!("{name}."), all);
    }
    for (index, values) in (0..).zip(&message.enum_type) {
        named_in_enum(values, below(&path, MESSAGE_ENUM, index), &format!("{name}."), all);
    }
    all.push((path, name));
}

fn named_in_enum(values: &EnumDescriptorProto, path: Vec<i32>, outer: &str, all: &mut Vec<(Vec<i32>, String)>) {
    let name = format!("{outer}{}", values.name());
    for (index, value) in (0..).zip(&values.value) {
        all.push((below(&path, ENUM_VALUE, index), format!("{name}.{}", value.name())));
    }
    all.push((path, name));
}

fn below(path: &[i32], field: i32, index: i32) -> Vec<i32> {
    [path, &[field, index]].concat()
}

fn has_comment(file: &FileDescriptorProto, path: &[i32]) -> bool {
    let locations = &file.source_code_info.as_ref().expect("descriptors keep their source").location;
    let at = locations.iter().find(|location| location.path == path);
    at.is_some_and(|location| !location.leading_comments().trim().is_empty())
}
