//! Users as lines of JSON and as rows of CSV.

use std::collections::HashMap;

use anyhow::Context;
use serde_json::value::RawValue;

use super::args::UserFormat;
use clerk_client::clerk::RawUser;

/// The columns of CSV, described in `docs/client.md`. Later versions may add columns at the end.
const COLUMNS: [&str; 20] = [
    "id",
    "external_id",
    "username",
    "first_name",
    "last_name",
    "primary_email_address",
    "primary_phone_number",
    "created_at",
    "updated_at",
    "last_sign_in_at",
    "last_active_at",
    "banned",
    "locked",
    "password_enabled",
    "two_factor_enabled",
    "has_image",
    "image_url",
    "public_metadata",
    "private_metadata",
    "unsafe_metadata",
];

type Fields<'a> = HashMap<String, &'a RawValue>;

impl UserFormat {
    /// The text before the first user.
    pub(super) fn head(self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Jsonl => Ok(Vec::new()),
            Self::Csv => rows([Ok(COLUMNS.map(str::to_owned))]),
        }
    }

    /// The text of some users.
    ///
    /// # Errors
    /// Returns an error if one cannot be read.
    pub(super) fn body<'a>(self, users: impl IntoIterator<Item = &'a RawUser>) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Jsonl => Ok(users.into_iter().flat_map(line).collect()),
            Self::Csv => rows(users.into_iter().map(row)),
        }
    }
}

/// The object in one line. Line breaks in JSON are white space between tokens; in strings they are escaped.
fn line(user: &RawUser) -> impl Iterator<Item = u8> {
    let flat = user.as_bytes().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte });
    flat.chain([b'\n'])
}

fn rows<const N: usize>(rows: impl IntoIterator<Item = anyhow::Result<[String; N]>>) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row?)?;
    }
    writer.into_inner().map_err(|error| error.into_error()).context("a row of CSV")
}

fn row(user: &RawUser) -> anyhow::Result<[String; COLUMNS.len()]> {
    let fields: Fields<'_> =
        serde_json::from_slice(user.as_bytes()).with_context(|| format!("{} cannot be read", user.id()))?;
    Ok(COLUMNS.map(|column| match column {
        "primary_email_address" => primary(&fields, "email_addresses", "email_address"),
        "primary_phone_number" => primary(&fields, "phone_numbers", "phone_number"),
        _ => fields.get(column).map_or_else(String::new, |value| text(value)),
    }))
}

/// A string without quotes, nothing for null, anything else as JSON.
fn text(value: &RawValue) -> String {
    match value.get() {
        "null" => String::new(),
        json => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
    }
}

/// The address in a list whose id is in `primary_<field>_id`.
fn primary(fields: &Fields<'_>, list: &str, field: &str) -> String {
    let found = || {
        let id = text(fields.get(&format!("primary_{field}_id"))?);
        let list: Vec<Fields<'_>> = serde_json::from_str(fields.get(list)?.get()).ok()?;
        let address = list.into_iter().find(|address| address.get("id").is_some_and(|value| text(value) == id))?;
        address.get(field).map(|value| text(value))
    };
    found().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &str) -> RawUser {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn jsonl_line_is_the_object_unchanged() {
        let users = [user(r#"{"id":"user_1","n":1.10, "t":"a\nb"}"#), user("{\n  \"id\": \"user_2\"\r\n}")];
        let lines = UserFormat::Jsonl.body(&users).unwrap();
        let expected = "{\"id\":\"user_1\",\"n\":1.10, \"t\":\"a\\nb\"}\n{   \"id\": \"user_2\"  }\n";
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }

    #[test]
    fn csv_row_matches_columns_and_text_is_unchanged() {
        let user = user(
            r#"{"id":"user_1","first_name":"=1+1","last_name":"O\"Neil, \u00e9\nx","username":null,"banned":true,
                "created_at":1700000000123,"primary_email_address_id":"idn_2","external_id":7,
                "email_addresses":[{"id":"idn_1","email_address":"a@x"},{"id":"idn_2","email_address":"b@x"}],
                "phone_numbers":"odd","primary_phone_number_id":"idn_3","public_metadata":{"a": 1.10}}"#,
        );
        let mut text = UserFormat::Csv.head().unwrap();
        text.extend(UserFormat::Csv.body([&user]).unwrap());
        let mut reader = csv::Reader::from_reader(&*text);
        assert_eq!(reader.headers().unwrap(), COLUMNS.as_slice());
        let rows: Vec<HashMap<String, String>> = reader.deserialize().collect::<Result<_, _>>().unwrap();
        let [row] = &*rows else { panic!("{rows:?}") };
        for (column, value) in [
            ("id", "user_1"),
            ("first_name", "=1+1"),
            ("last_name", "O\"Neil, \u{e9}\nx"),
            ("username", ""),
            ("banned", "true"),
            ("locked", ""),
            ("created_at", "1700000000123"),
            ("external_id", "7"),
            ("primary_email_address", "b@x"),
            ("primary_phone_number", ""),
            ("public_metadata", r#"{"a": 1.10}"#),
        ] {
            assert_eq!(row[column], value, "{column}");
        }
    }
}
