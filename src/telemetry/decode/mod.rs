//! Decodes the body of an OTLP/HTTP trace request, with limits on everything that a sender chooses.
//!
//! JSON is not read with the `serde` support of `opentelemetry-proto` 0.33: that refuses `null` fields, an empty
//! `arrayValue`, 32-bit numbers as strings and `NaN`, all of which the JSON mapping of protobuf allows and senders use,
//! and one bad id refuses the spans of the whole body. See `json`.

mod inflate;
mod json;
mod json_number;
mod json_outline;
mod weight;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl BodyFormat {
    /// Finds the format for a `Content-Type`. Parameters are ignored.
    ///
    /// # Errors
    ///
    /// [`DecodeError::ContentType`] if it is missing or another one.
    pub fn of(content_type: Option<&[u8]>) -> Result<Self, DecodeError> {
        let value = content_type.unwrap_or_default();
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(Self::Protobuf.media_type().as_bytes()) {
            Ok(Self::Protobuf)
        } else if essence.eq_ignore_ascii_case(Self::Json.media_type().as_bytes()) {
            Ok(Self::Json)
        } else {
            Err(DecodeError::ContentType)
        }
    }

    /// Returns the media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    /// Not compressed.
    Identity,
    /// gzip.
    Gzip,
}

impl BodyEncoding {
    /// Finds the compression for a `Content-BodyEncoding`; none if it is missing or empty.
    ///
    /// # Errors
    ///
    /// [`DecodeError::ContentEncoding`] if it is another one, or several.
    pub fn of(content_encoding: Option<&[u8]>) -> Result<Self, DecodeError> {
        let value = content_encoding.unwrap_or_default().trim_ascii();
        if value.is_empty() || value.eq_ignore_ascii_case(b"identity") {
            Ok(Self::Identity)
        } else if value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip") {
            Ok(Self::Gzip)
        } else {
            Err(DecodeError::ContentEncoding)
        }
    }
}

/// Limits on one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Maximum bytes as sent.
    pub max_body_bytes: usize,
    /// Maximum bytes after decompression.
    pub max_inflated_bytes: usize,
    /// Maximum bytes of the decoded spans and attributes, without their texts. Two bytes can decode to 300.
    pub max_decoded_bytes: usize,
    /// Maximum depth of nested objects, lists and messages. In attributes in protobuf, small bodies may have the 100 that
    /// prost allows.
    pub max_depth: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            max_inflated_bytes: 16 << 20,
            max_decoded_bytes: 64 << 20,
            // Requests have about 12 levels, plus those of attributes that are lists or objects.
            max_depth: 64,
        }
    }
}

/// Why a body cannot be decoded. The texts contain nothing of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Neither protobuf nor JSON.
    #[error("the content type is not supported; send application/x-protobuf or application/json")]
    ContentType,
    /// Neither gzip nor identity.
    #[error("the content encoding is not supported; send gzip or identity")]
    ContentEncoding,
    /// Too many bytes as sent.
    #[error("the body is too large; send smaller batches")]
    BodyTooLarge,
    /// Too many bytes after decompression.
    #[error("the decompressed body is too large; send smaller batches")]
    InflatedTooLarge,
    /// Too many spans or attributes.
    #[error("the body has too many spans or attributes; send smaller batches")]
    DecodedTooLarge,
    /// Nested too deeply.
    #[error("the body is nested too deeply")]
    TooDeep,
    /// Not valid gzip, or incomplete.
    #[error("the body is not valid gzip, or it is incomplete")]
    Gzip,
    /// Not a valid protobuf message, or incomplete.
    #[error("the body is not a valid ExportTraceServiceRequest in protobuf, or it is incomplete")]
    Protobuf,
    /// Not valid JSON, or not the expected fields.
    #[error("the body is not a valid ExportTraceServiceRequest in JSON: line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
}

impl DecodeError {
    /// Returns the HTTP status: 400, 413 or 415.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::ContentType | Self::ContentEncoding => 415,
            Self::BodyTooLarge | Self::InflatedTooLarge | Self::DecodedTooLarge => 413,
            Self::TooDeep | Self::Gzip | Self::Protobuf | Self::Json { .. } => 400,
        }
    }
}

/// Decodes a body.
///
/// # Errors
///
/// A [`DecodeError`] if the body is invalid or exceeds a limit.
pub fn decode(
    body: &[u8],
    format: BodyFormat,
    encoding: BodyEncoding,
    limits: &DecodeLimits,
) -> Result<ExportTraceServiceRequest, DecodeError> {
    if body.len() > limits.max_body_bytes {
        return Err(DecodeError::BodyTooLarge);
    }
    let inflated;
    let plain = match encoding {
        BodyEncoding::Identity if body.len() > limits.max_inflated_bytes => return Err(DecodeError::InflatedTooLarge),
        BodyEncoding::Identity => body,
        BodyEncoding::Gzip => {
            inflated = inflate::inflate(body, limits.max_inflated_bytes)?;
            &inflated
        }
    };
    match format {
        BodyFormat::Protobuf => {
            weight::check(plain, limits)?;
            ExportTraceServiceRequest::decode(plain).map_err(|_| weight::reason(plain, limits))
        }
        BodyFormat::Json => {
            json_outline::check(plain, limits)?;
            json::decode(plain)
        }
    }
}
