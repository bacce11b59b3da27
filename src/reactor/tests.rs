//! The reactor against real sockets.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

fn reactor(buffers: u16) -> (ReceiveBuffers, Reactor) {
    let (reactor, buffers) = Reactor::new(UringSize::SMALL, buffers, 1024, 1).expect("io_uring");
    (buffers, reactor)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

const TOKEN: Token = Token { slot: 3, generation: 9 };

fn next(reactor: &mut Reactor) -> Vec<Event> {
    let mut events = Vec::new();
    while events.is_empty() {
        reactor.wait(None);
        reactor.reap(&mut events);
    }
    events
}

#[test]
fn bytes_come_in_and_go_out() {
    let (mut buffers, mut reactor) = reactor(4);
    let (mut client, server) = pair();
    reactor.receive(TOKEN, server.as_fd());
    for _ in 0..20 {
        client.write_all(b"ping").expect("write");
        let Some(Event::Received { token: TOKEN, buffer, armed: true }) = next(&mut reactor).pop() else { panic!() };
        assert_eq!(buffers.bytes(&buffer), b"ping");
        buffers.give_back([buffer].into_iter());
    }
    reactor.send(TOKEN, server.as_fd(), b"--pong".to_vec(), 2);
    assert!(matches!(next(&mut reactor).pop(), Some(Event::Sent { token: TOKEN, result: Ok(4), .. })));
    let mut reply = [0; 4];
    client.read_exact(&mut reply).expect("read");
    assert_eq!(&reply, b"pong");
    drop(client);
    assert!(matches!(next(&mut reactor).pop(), Some(Event::ReceiveEnded { token: TOKEN, errno: None })));
}

#[test]
fn a_receive_that_runs_out_of_buffers_ends_and_can_be_armed_again() {
    let (mut buffers, mut reactor) = reactor(2);
    let (mut client, server) = pair();
    client.write_all(&[7; 5000]).expect("write");
    reactor.receive(TOKEN, server.as_fd());
    let (mut held, mut total) = (Vec::new(), 0);
    while total < 5000 {
        for event in next(&mut reactor) {
            match event {
                Event::Received { buffer, armed, .. } => {
                    total += buffers.bytes(&buffer).len();
                    held.push(buffer);
                    assert!(armed || held.len() == 2);
                }
                Event::ReceiveEnded { errno: Some(Errno::NO_BUFFERS), .. } => {
                    buffers.give_back(held.drain(..));
                    reactor.receive(TOKEN, server.as_fd());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(total, 5000);
}

#[test]
fn a_cancelled_receive_says_so_and_leaves_later_bytes_in_the_socket() {
    let (_buffers, mut reactor) = reactor(2);
    let (mut client, mut server) = pair();
    reactor.receive(TOKEN, server.as_fd());
    reactor.poll();
    reactor.cancel_receive(TOKEN);
    let ended = next(&mut reactor).pop();
    assert!(matches!(ended, Some(Event::ReceiveEnded { errno: Some(Errno::CANCELLED), .. })), "{ended:?}");
    client.write_all(b"later").expect("write");
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).expect("read");
    assert_eq!(&bytes, b"later");
}

#[test]
fn accepts_ticks_wakes_and_doorbells_arrive() {
    let (_buffers, mut reactor) = reactor(2);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    reactor.accept(1, listener.as_fd());
    reactor.poll();
    let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    assert!(matches!(next(&mut reactor).pop(), Some(Event::Accepted { listener: 1, armed: true, .. })));
    reactor.cancel_accept(1);
    assert!(matches!(next(&mut reactor).pop(), Some(Event::AcceptFailed { listener: 1, errno: Errno::CANCELLED })));

    reactor.start_timer(Duration::from_millis(1));
    assert!(matches!(next(&mut reactor).pop(), Some(Event::Tick)));
    assert!(matches!(next(&mut reactor).pop(), Some(Event::Tick)), "the timer goes on");

    reactor.start_timer(Duration::from_secs(3600));
    let wake = crate::sys::EventFd::new().expect("eventfd");
    reactor.listen_for_wakes(wake.raw_fd());
    for _ in 0..2 {
        wake.signal();
        while !next(&mut reactor).iter().any(|e| matches!(e, Event::Woken)) {}
    }
    let doorbell = reactor.doorbell();
    let (_sibling_buffers, mut sibling) = self::reactor(2);
    sibling.ring(5, doorbell);
    sibling.poll();
    while !next(&mut reactor).iter().any(|e| matches!(e, Event::Woken)) {}
    sibling.ring(5, wake.raw_fd());
    assert!(matches!(next(&mut sibling).pop(), Some(Event::RingFailed { sibling: 5 })), "an eventfd is no uring");
}

#[test]
fn a_reactor_with_operations_in_flight_can_be_dropped() {
    let (_buffers, mut reactor) = reactor(2);
    let (_client, server) = pair();
    reactor.receive(TOKEN, server.as_fd());
    reactor.send(TOKEN, server.as_fd(), vec![1; 64 << 20], 0);
    reactor.poll();
    drop(reactor);
}
