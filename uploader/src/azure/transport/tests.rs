use std::net::SocketAddr;

use azure_core::http::Url;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// It gives up soon, but not on a commit.
fn impatient() -> Transport {
    let short = Duration::from_millis(200);
    Transport { patience: Patience { usual: short, commit: Duration::from_mins(1), most: short }, ..patient() }
}

fn patient() -> Transport {
    Transport::new(false).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn put(address: &str, query: &str, length: usize) -> Request {
    let mut request = Request::new(Url::parse(&format!("http://{address}/data/a?{query}")).unwrap(), Method::Put);
    request.set_body(Bytes::from(vec![1_u8; length]));
    request
}

async fn failure(transport: &Transport, request: &Request) -> BlobError {
    let error = transport.execute_request(request).await.unwrap_err();
    super::super::errors::carried(&error).unwrap().clone()
}

#[tokio::test]
async fn a_server_that_stops_reading_is_given_up() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_hours(1)).await;
        drop(socket);
    });
    let error = failure(&impatient(), &put(&address.to_string(), "comp=block", 64 << 20)).await;
    assert_eq!(error, transient("no progress in 0 s in an exchange with 127.0.0.1".to_owned()));
    server.abort();
}

#[tokio::test]
async fn a_commit_may_take_longer_to_be_answered_than_a_block() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = socket.read(&mut request).await.unwrap();
                if !String::from_utf8_lossy(&request[..length]).contains("comp=blocklist") {
                    return std::future::pending().await;
                }
                tokio::time::sleep(Duration::from_millis(350)).await;
                let _ = socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
            });
        }
    });
    let address = address.to_string();
    assert!(matches!(failure(&impatient(), &put(&address, "comp=block", 5)).await, BlobError::Transient { .. }));
    let reply = impatient().execute_request(&put(&address, "comp=blocklist", 5)).await.unwrap();
    assert_eq!(u16::from(reply.status()), 201);
    server.abort();
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_host_name_the_host_and_no_sas_token() {
    let (listener, address) = listen().await;
    drop(listener);
    for host in [address.to_string(), "no-such-account.invalid:1".to_owned()] {
        let error = failure(&patient(), &put(&host, "sv=1&sig=secret", 5)).await;
        let BlobError::Transient { message, .. } = error else { panic!("{error:?}") };
        let name = host.split(':').next().unwrap();
        assert!(message.starts_with(&format!("cannot connect to {name}: ")), "{message}");
        assert!(!message.contains("secret") && !message.contains("data/a"), "{message}");
    }
}

#[tokio::test]
async fn of_several_addresses_of_a_host_one_that_answers_is_found() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    });
    // Nobody listens at the IPv6 address and at the first IPv4 address.
    let addresses =
        [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())), ([127, 9, 9, 9], address.port()).into(), address];
    let builder = reqwest::Client::builder().no_proxy().resolve_to_addrs("account.invalid", &addresses);
    let transport = Transport::build(builder, false).unwrap();
    let url = format!("account.invalid:{}", address.port());
    let reply = transport.execute_request(&put(&url, "comp=block", 5)).await.unwrap();
    assert_eq!(u16::from(reply.status()), 201);
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_reply_is_not_tried_again() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        for _ in 0..1 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
        }
        // A second connection would be refused, which reads differently.
        drop(listener);
    });
    let error = failure(&patient(), &put(&address.to_string(), "comp=block", 5)).await;
    assert!(error.to_string().starts_with("the connection to 127.0.0.1 broke: "), "{error}");
    server.await.unwrap();
}

#[tokio::test]
async fn redirects_are_answers_and_connections_are_used_again() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut requests = 0;
        while socket.read(&mut [0; 4096]).await.unwrap() > 0 {
            requests += 1;
            let reply = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 2\r\nX-Ms-Meta-Owner: \xff\r\n\r\nno";
            socket.write_all(reply).await.unwrap();
        }
        requests
    });
    let transport = patient();
    for _ in 0..3 {
        let reply = transport.execute_request(&put(&address.to_string(), "", 5)).await.unwrap();
        assert_eq!(u16::from(reply.status()), 302);
        assert_eq!(reply.try_into_raw_response().await.unwrap().body().as_ref(), b"no");
    }
    drop(transport);
    assert_eq!(server.await.unwrap(), 3);
}

/// Gives the addresses that are known at the moment.
#[derive(Clone, Default)]
struct Names(Arc<std::sync::Mutex<Vec<SocketAddr>>>);

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let addresses = self.0.lock().unwrap().clone();
        Box::pin(async move { Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs) })
    }
}

/// Answers one request with 201, and is gone.
async fn answer_once(listener: TcpListener) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let _ = socket.read(&mut [0; 4096]).await;
    socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.unwrap();
}

#[tokio::test]
async fn a_host_that_has_moved_is_found_at_its_new_address_without_a_restart() {
    let names = Names::default();
    let builder = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(names.clone()));
    let transport = Transport::build(builder, false).unwrap();
    let (old, address) = listen().await;
    let request = put(&format!("account.invalid:{}", address.port()), "comp=block", 5);
    *names.0.lock().unwrap() = vec![address];
    let server = tokio::spawn(answer_once(old));
    assert!(transport.execute_request(&request).await.is_ok());
    server.await.unwrap();
    let error = failure(&transport, &request).await;
    assert!(matches!(error, BlobError::Transient { .. }), "{error:?}");

    let moved = SocketAddr::from(([127, 0, 0, 2], address.port()));
    let server = tokio::spawn(answer_once(TcpListener::bind(moved).await.unwrap()));
    *names.0.lock().unwrap() = vec![moved];
    assert!(transport.execute_request(&request).await.is_ok());
    server.await.unwrap();
}
