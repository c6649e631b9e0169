//! OTLP over gRPC, as exporters built on a gRPC library speak it.

use std::str::FromStr;

use fleetlog_ingest_gateway::{Config, GatewayConfig};
use fleetlog_schemas::control::Role;
use fleetlog_schemas::record::Route;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::harness::{Gateway, Node, on_kafka};

/// A request with the key in its metadata, under the name and in the form that are asked for.
fn request<T>(message: T, name: &'static str, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, MetadataValue::from_str(key).unwrap());
    request
}

fn with_key<T>(message: T, gateway: &Gateway) -> Request<T> {
    request(message, "authorization", &format!("Bearer {}", gateway.key))
}

pub(crate) async fn connect(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

fn logs(text: &str) -> ExportLogsServiceRequest {
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let scope_logs = vec![ScopeLogs {
        log_records: vec![LogRecord { body, ..LogRecord::default() }],
        ..Default::default()
    }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

fn spans(ids: &[&[u8]]) -> ExportTraceServiceRequest {
    let span =
        |id: &&[u8]| Span { trace_id: id.to_vec(), span_id: vec![7; 8], name: "x".into(), ..Span::default() };
    let spans = ids.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
    }
}

fn metrics() -> ExportMetricsServiceRequest {
    let value = Some(number_data_point::Value::AsInt(1));
    let data_points = vec![NumberDataPoint { value, ..NumberDataPoint::default() }];
    let data = Some(metric::Data::Gauge(Gauge { data_points }));
    let metrics = vec![Metric { name: "x".into(), data, ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }],
    }
}

/// The message that an accepted call published, decompressed.
async fn stored<T>(node: &Node, response: &Response<T>, route: Route, encoding: &str) -> Vec<u8> {
    let request_id = response.metadata().get("x-request-id").unwrap().to_str().unwrap();
    let published = node.published(request_id).await;
    let [batch] = &published[..] else { panic!("one message: {published:?}") };
    assert_eq!((batch.route, batch.content_encoding.as_str()), (route, encoding));
    assert_eq!((batch.content_type.as_str(), batch.project_id.as_str()), ("application/grpc", "p1"));
    match encoding {
        "gzip" => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&batch.payload.0[..]), &mut bytes)
                .unwrap();
            bytes
        }
        "zstd" => zstd::decode_all(&batch.payload.0[..]).unwrap(),
        _ => batch.payload.0.clone(),
    }
}

#[test]
fn every_signal_is_published_as_the_very_message_and_as_compressed_as_it_came() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        // Either listener speaks both.
        for url in [&gateway.grpc_url, &gateway.url] {
            let channel = connect(url).await;
            let said = TraceServiceClient::new(channel.clone())
                .export(with_key(spans(&[&[5; 16]]), &gateway))
                .await
                .unwrap();
            let bytes = stored(node, &said, Route::OtlpTraces, "identity").await;
            assert_eq!((bytes, &said.get_ref().partial_success), (spans(&[&[5; 16]]).encode_to_vec(), &None));
            let said = MetricsServiceClient::new(channel.clone())
                .export(with_key(metrics(), &gateway))
                .await
                .unwrap();
            assert_eq!(stored(node, &said, Route::OtlpMetrics, "identity").await, metrics().encode_to_vec());
            let long = logs(&"x".repeat(10_000));
            for (encoding, name) in [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")]
            {
                let mut client = LogsServiceClient::new(channel.clone()).send_compressed(encoding);
                let said = client.export(with_key(long.clone(), &gateway)).await.unwrap();
                assert_eq!(said.get_ref(), &ExportLogsServiceResponse::default());
                assert_eq!(stored(node, &said, Route::OtlpLogs, name).await, long.encode_to_vec());
            }
        }
        gateway.stop().await;
    });
}

#[test]
fn a_key_is_found_in_the_metadata_and_refusals_have_their_codes() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let viewer = node.key(Role::Viewer).await;
        let mut client = LogsServiceClient::new(connect(&gateway.grpc_url).await);
        client.export(request(logs("x"), "x-api-key", &gateway.key)).await.unwrap();
        let refused = async |client: &mut LogsServiceClient<Channel>, key: &str| {
            client.export(request(logs("x"), "authorization", key)).await.unwrap_err()
        };
        let bare = client.export(logs("x")).await.unwrap_err();
        assert_eq!((bare.code(), &bare.message()[..12]), (Code::Unauthenticated, "missing_key:"));
        assert_eq!(refused(&mut client, "Bearer fl_a_b").await.code(), Code::Unauthenticated);
        let viewer = loop {
            // The new key arrives by itself; until then it is unknown.
            let status = refused(&mut client, &format!("Bearer {viewer}")).await;
            if status.code() != Code::Unauthenticated {
                break status;
            }
        };
        assert_eq!(viewer.code(), Code::PermissionDenied);
        gateway.stop().await;
    });
}

#[test]
fn a_message_beyond_the_limit_is_an_invalid_argument() {
    on_kafka(|node| async move {
        let small =
            GatewayConfig { body_max_bytes: 1_000, decoded_max_bytes: 2_000, ..GatewayConfig::default() };
        let gateway = node.gateway_with(small).await;
        let channel = connect(&gateway.grpc_url).await;
        let export = async |encoding: Option<CompressionEncoding>, length: usize| {
            let client = LogsServiceClient::new(channel.clone());
            let mut client = encoding.map_or(client.clone(), |encoding| client.send_compressed(encoding));
            let sent = client.export(with_key(logs(&"x".repeat(length)), &gateway)).await;
            sent.err().map(|status| (status.code(), status.message().split(':').next().unwrap().to_owned()))
        };
        assert_eq!(export(None, 900).await, None);
        let too_large = |code: &str| Some((Code::InvalidArgument, code.to_owned()));
        assert_eq!(export(None, 1_500).await, too_large("body_too_large"));
        assert_eq!(export(Some(CompressionEncoding::Gzip), 1_500).await, None);
        assert_eq!(
            export(Some(CompressionEncoding::Gzip), 100_000).await,
            too_large("decompressed_too_large")
        );
        gateway.stop().await;
    });
}

#[test]
fn a_span_with_bad_ids_costs_itself_and_a_call_without_good_ones_is_refused() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let mut client = TraceServiceClient::new(connect(&gateway.grpc_url).await);
        let said = client.export(with_key(spans(&[&[5; 16], &[5; 3]]), &gateway)).await.unwrap().into_inner();
        assert_eq!(said.partial_success.unwrap().rejected_spans, 1);
        let refused = client.export(with_key(spans(&[&[5; 3]]), &gateway)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        gateway.stop().await;
    });
}

/// The delay of `google.rpc.RetryInfo` in a status's details.
pub(crate) fn retry_after_seconds(status: &Status) -> Option<i64> {
    #[derive(Clone, PartialEq, Message)]
    struct Details {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(message, optional, tag = "2")]
        value: Option<RetryInfo>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        delay: Option<Delay>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
    }
    let Details { details } = Details::decode(status.details()).ok()?;
    let info = details.into_iter().find(|any| any.type_url == "type.googleapis.com/google.rpc.RetryInfo")?;
    info.value?.delay.map(|delay| delay.seconds)
}

/// INV-9: what is under way has a bound, and who meets it is told when to come back.
#[test]
fn overload_is_told_with_a_time_to_come_back() {
    on_kafka(|node| async move {
        let shared = GatewayConfig {
            project_share: 0.0,
            in_flight_max_bytes: 4_000,
            body_max_bytes: 1_500,
            decoded_max_bytes: 2_500,
            ..GatewayConfig::default()
        };
        let busy = GatewayConfig { in_flight_max_requests: 0, ..GatewayConfig::default() };
        for (config, code, reason) in
            [(shared, Code::ResourceExhausted, "project_share_exceeded:"), (busy, Code::Unavailable, "busy:")]
        {
            let mut gateway = Gateway::start(Config { gateway: config, kafka: node.config() }).await;
            gateway.key = node.key(Role::Ingest).await;
            let mut client = LogsServiceClient::new(connect(&gateway.grpc_url).await)
                .send_compressed(CompressionEncoding::Gzip);
            let overloaded = loop {
                let status = client.export(with_key(logs(&"x".repeat(2_200)), &gateway)).await.unwrap_err();
                if status.message().starts_with(reason) {
                    break status;
                }
                let expected = ["starting:", "unknown_key:"];
                assert!(expected.iter().any(|code| status.message().starts_with(code)), "{status:?}");
            };
            assert_eq!(overloaded.code(), code);
            assert!((1..=3).contains(&retry_after_seconds(&overloaded).unwrap()), "{overloaded:?}");
            gateway.stop().await;
        }
    });
}

#[test]
fn what_is_no_call_of_ours_is_said_so() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let export = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let post = |path: &str, body: &'static [u8]| {
            let request =
                gateway.post(path).header("content-type", "application/grpc").header("te", "trailers");
            request.body(body).send()
        };
        let code =
            |response: &reqwest::Response| response.headers()["grpc-status"].to_str().unwrap().to_owned();
        assert_eq!(code(&post("/some.Service/Call", b"").await.unwrap()), "12");
        assert_eq!(code(&post(export, b"\0\0\0\0\x09abc").await.unwrap()), "3");
        assert_eq!(code(&post(export, b"").await.unwrap()), "3");
        let plain = gateway.post(export).body("{}").send().await.unwrap();
        assert_eq!(plain.status(), 415);
        let health = post("/grpc.health.v1.Health/Check", b"\0\0\0\0\0").await.unwrap();
        assert_eq!(&health.bytes().await.unwrap()[..], b"\0\0\0\0\x02\x08\x01");
        gateway.stop().await;
    });
}

/// INV-1: shutdown breaks no promise that was given.
#[test]
fn shutdown_finishes_calls_under_way_on_an_open_connection() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let channel = connect(&gateway.grpc_url).await;
        let mut under_way = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (mut client, request) =
                (LogsServiceClient::new(channel.clone()), with_key(logs("x"), &gateway));
            under_way.spawn(async move { client.export(request).await });
        }
        gateway.shutdown.trigger();
        while let Some(ended) = under_way.join_next().await {
            match ended.unwrap() {
                Ok(said) => drop(stored(node, &said, Route::OtlpLogs, "identity").await),
                // The connection was given up before the call; nothing was promised.
                Err(status) => assert!(
                    [Code::Unavailable, Code::Unknown, Code::Cancelled].contains(&status.code()),
                    "{status:?}"
                ),
            }
        }
        gateway.served.await.unwrap().unwrap();
    });
}
