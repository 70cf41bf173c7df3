//! A storage account and a token service that answer with all that they are sent, a collector of telemetry, an API server and a proxy; one
//! address for all.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::marks::signed_token;

pub(crate) const UID: &str = "6f7e0b0c-0000-4000-8000-000000000001";

/// What a server was sent: first lines and bodies.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, String)>>>);

impl Log {
    fn push(&self, line: &str, body: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((line.to_owned(), body));
    }

    /// Bodies of the requests whose first line has `part`.
    pub(crate) fn bodies(&self, part: &str) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(line, _)| line.contains(part)).map(|(_, body)| body.clone()).collect()
    }
}

/// Starts one, over TLS or not.
pub(crate) fn serve(tls: Option<Arc<ServerConfig>>) -> (SocketAddr, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let log = Log::default();
    let shared = log.clone();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (log, tls) = (shared.clone(), tls.clone());
            thread::spawn(move || converse(socket, tls, &log));
        }
    });
    (address, log)
}

fn converse(socket: TcpStream, tls: Option<Arc<ServerConfig>>, log: &Log) {
    if let Some(config) = tls {
        let Ok(connection) = ServerConnection::new(config) else { return };
        let mut reader = BufReader::new(StreamOwned::new(connection, socket));
        while answer(&mut reader, log).is_some() {}
    } else {
        let mut reader = BufReader::new(socket);
        while answer(&mut reader, log).is_some() {}
    }
}

fn answer(reader: &mut BufReader<impl Read + Write>, log: &Log) -> Option<()> {
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let line = head.lines().next()?.to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    log.push(&line, body.clone());
    let echo = format!("{head} {body}").replace(|c: char| c.is_control(), " ");
    reader.get_mut().write_all(reply(&line, &echo).as_bytes()).ok()?;
    reader.get_mut().flush().ok()
}

fn reply(line: &str, echo: &str) -> String {
    let (status, body) = match line {
        _ if line.contains("/apis/") => ("200 OK", session()),
        _ if line.contains(" /v1/") => ("200 OK", String::new()),
        _ if line.starts_with("CONNECT") => ("407 Proxy Authentication Required", echo.to_owned()),
        _ if line.contains("/refusing/") => ("401 Unauthorized", refusal(echo)),
        _ if line.contains("/tenant/") || line.contains("/metadata/") => ("200 OK", token()),
        _ if line.starts_with("HEAD") => ("404 Not Found\r\nx-ms-error-code: BlobNotFound", String::new()),
        _ => {
            let body = format!("<?xml version=\"1.0\"?><Error><Message>{echo}</Message></Error>");
            ("400 Bad Request\r\nx-ms-error-code: InvalidQueryParameterValue", body)
        }
    };
    // Headers that libraries show when they are asked to talk.
    let headers =
        ["Server", "x-ms-request-id", "WWW-Authenticate", "Last-Modified"].map(|name| format!("{name}: {echo}\r\n")).concat();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn session() -> String {
    format!(
        r#"{{"apiVersion":"blobferry.io/v1alpha1","kind":"UploadSession","metadata":{{"name":"s","namespace":"n","uid":"{UID}",
        "resourceVersion":"1","generation":1}},"spec":{{}},"status":{{}}}}"#
    )
}

fn token() -> String {
    format!(
        r#"{{"token_type":"Bearer","expires_in":3600,"expires_on":"4070908800","resource":"r","access_token":"{}"}}"#,
        signed_token()
    )
}

fn refusal(echo: &str) -> String {
    format!(r#"{{"error":"invalid_client","error_description":"AADSTS7000215: not with {}"}}"#, echo.replace('"', "'"))
}
