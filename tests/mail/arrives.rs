//! What arrives is what was sent, as Python's `email` package reads it.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coord_core::Code;
use coord_core::mail::{Attachment, Message, Status};
use serde_json::{Value, json};

use crate::support::{hello, mailer, with_server};

/// Ten scripts, with what is hard in each: right to left, marks, no spaces, beyond the basic plane.
const SCRIPTS: [&str; 10] = [
    "Grüße aus Köln, œuvre – “naïve”",
    "Привет, как дела?",
    "Γειά σου Κόσμε",
    "שלום עולם",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好，世界：一切都好吗",
    "こんにちは、世界。𠮷野家",
    "안녕하세요 세계 👩‍👩‍👧‍👦 🏳️‍🌈",
];

/// What nobody may call a defect, and what must hold for every message on the wire.
fn check_wire(message: &Value) {
    assert_eq!(message["defects"], json!([]), "{message}");
    let raw = BASE64.decode(message["raw"].as_str().unwrap()).unwrap();
    for line in raw.split(|byte| *byte == b'\n') {
        assert!(line.is_empty() || line.ends_with(b"\r") || line.len() <= 998);
        assert!(line.len() <= 999, "{}", String::from_utf8_lossy(line));
        assert!(!line.strip_suffix(b"\r").unwrap_or(line).contains(&b'\r'), "a raw carriage return");
    }
    for name in ["Date", "Message-ID", "From", "MIME-Version"] {
        let count = message["headers"].as_array().unwrap().iter().filter(|one| one[0] == name).count();
        assert_eq!(count, 1, "{name}: {message}");
    }
}

/// Python gives the text's lines as they were, but for the end of the last one.
fn same_text(sent: &str, got: &Value) {
    let lines = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n").trim_end_matches('\n').to_owned();
    assert_eq!(lines(got.as_str().unwrap_or_else(|| panic!("a text, not {got}"))), lines(sent));
}

#[test]
fn a_plain_text() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&sender_name=Läden&reply_to=help@example.org");
        let text = "First.\r\n.a line with a dot\n..\n.\nFrom here\rto there\n\nlast";
        let message = Message::new().to("Ann Lee <ann@example.org>").subject("Plain").text(text);
        let report = mailer.send(&message).await.unwrap();
        assert!(report.all_accepted() && report.recipients[0].code == 250, "{report:?}");
        let [got] = &server.messages()[..] else { panic!("one message") };
        check_wire(got);
        same_text(text, &got["text"]);
        assert_eq!(got["structure"], json!(["text/plain"]));
        assert_eq!(got["from"], json!([["Läden", "shop@example.org"]]));
        assert_eq!(got["to"], json!([["Ann Lee", "ann@example.org"]]));
        assert_eq!(got["reply_to"], json!([["", "help@example.org"]]));
        assert_eq!(got["message_id"], json!(report.message_id));
        assert!(report.message_id.ends_with("@example.org>"));
    });
}

#[test]
fn ten_scripts_in_names_subjects_texts_and_file_names() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        for script in SCRIPTS {
            let long = format!("{script} — {}", script.repeat(8));
            let message = Message::new()
                .from((script, "a@example.org"))
                .to((script, "b@example.org"))
                .to((long.chars().take(200).collect::<String>().trim(), "c@example.org"))
                .subject(&long)
                .text(format!("{long}\n{script}\n"))
                .html(format!("<p>{long}</p>"))
                .header("X-Script", &long)
                .attach(Attachment::bytes(&format!("{script}.txt"), script.as_bytes()));
            mailer.send(&message).await.unwrap();
            let got = server.messages().pop().unwrap();
            check_wire(&got);
            assert_eq!(got["subject"], json!(long));
            assert_eq!(got["from"], json!([[script, "a@example.org"]]));
            assert_eq!(got["to"][0], json!([script, "b@example.org"]));
            assert_eq!(got["to"][1][0], json!(long.chars().take(200).collect::<String>().trim()));
            same_text(&format!("{long}\n{script}\n"), &got["text"]);
            same_text(&format!("<p>{long}</p>"), &got["html"]);
            assert_eq!(got["files"][0]["name"], json!(format!("{script}.txt")));
            assert_eq!(got["files"][0]["base64"], json!(BASE64.encode(script)));
            let header = got["headers"].as_array().unwrap().iter().find(|one| one[0] == "X-Script").unwrap();
            assert_eq!(header[1], json!(long));
        }
    });
}

#[test]
fn alternatives_inline_images_and_attachments() {
    with_server(|server| async move {
        let folder = coord_tests::servers::scratch::Scratch::new().unwrap();
        let path = folder.path().join("может быть \"x\"; y=1.pdf");
        let pdf: Vec<u8> = (0..70_000u32).map(|n| (n * 7 % 251) as u8).collect();
        std::fs::File::create(&path).unwrap().write_all(&pdf).unwrap();
        let message = hello()
            .html("<img src=\"cid:logo@x\">")
            .inline("logo@x", Attachment::bytes("logo.png", [0, 255, 13, 10, 46, 13, 10]))
            .attach(Attachment::path(&path))
            .attach(Attachment::bytes("notes.txt", *b"a\nb\r\n.\r\n"))
            .attach(Attachment::bytes("mail.eml", *b"Subject: x\r\n\r\n"))
            .attach(Attachment::bytes("data", *b"").media_type("application/x-own"));
        mailer(&server, "").send(&message).await.unwrap();
        let got = server.messages().pop().unwrap();
        check_wire(&got);
        assert_eq!(
            got["structure"],
            json!([
                "multipart/mixed",
                ["multipart/alternative", ["text/plain"], ["multipart/related", ["text/html"], ["image/png"]]],
                ["application/pdf"],
                ["text/plain"],
                ["application/octet-stream"],
                ["application/x-own"]
            ])
        );
        same_text("Hello, Ann.\n", &got["text"]);
        let files = got["files"].as_array().unwrap();
        assert_eq!(files[0]["cid"], json!("<logo@x>"));
        assert_eq!(files[0]["disposition"], json!("inline"));
        assert_eq!(files[0]["base64"], json!(BASE64.encode([0, 255, 13, 10, 46, 13, 10])));
        assert_eq!(files[1]["name"], json!("может быть \"x\"; y=1.pdf"));
        assert_eq!(files[1]["base64"], json!(BASE64.encode(&pdf)));
        assert_eq!(files[2]["base64"], json!(BASE64.encode("a\nb\r\n.\r\n")));
        assert_eq!(files[4]["base64"], json!(""));
    });
}

#[test]
fn every_shape_of_body() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        let base = || Message::new().to("ann@example.org");
        let image = || Attachment::bytes("i.png", *b"png");
        for (message, structure) in [
            (base(), json!(["text/plain"])),
            (base().html("<p>"), json!(["text/html"])),
            (base().text("t").html("<p>"), json!(["multipart/alternative", ["text/plain"], ["text/html"]])),
            (base().html("<p>").inline("i", image()), json!(["multipart/related", ["text/html"], ["image/png"]])),
            (base().attach(image()), json!(["multipart/mixed", ["text/plain"], ["image/png"]])),
            (base().text("t").attach(image()), json!(["multipart/mixed", ["text/plain"], ["image/png"]])),
        ] {
            mailer.send(&message).await.unwrap();
            let got = server.messages().pop().unwrap();
            check_wire(&got);
            assert_eq!(got["structure"], structure);
        }
    });
}

#[test]
fn nobody_sees_bcc_and_everybody_gets_it_once() {
    with_server(|server| async move {
        let message = hello().cc("Bob <bob@example.org>").bcc("Eve <eve@example.org>").bcc("ann@example.org");
        let report = mailer(&server, "").send(&message).await.unwrap();
        let addresses: Vec<_> = report.recipients.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(addresses, ["ann@example.org", "bob@example.org", "eve@example.org"]);
        let got = server.messages().pop().unwrap();
        assert_eq!(got["rcpt"], json!(addresses));
        let raw = String::from_utf8(BASE64.decode(got["raw"].as_str().unwrap()).unwrap()).unwrap();
        assert!(!raw.to_lowercase().contains("bcc") && !raw.to_lowercase().contains("eve"), "{raw}");
    });
}

#[test]
fn domains_of_all_scripts_and_smtputf8_only_where_it_is_needed() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        mailer.send(&Message::new().to("Анна <anna@пример.рф>").text("x")).await.unwrap();
        let got = server.messages().pop().unwrap();
        assert_eq!(got["rcpt"], json!(["anna@xn--e1afmkfd.xn--p1ai"]));
        assert_eq!(got["mail_options"], json!([]));
        mailer.send(&Message::new().to("Анна <анна@пример.рф>").text("x")).await.unwrap();
        let got = server.messages().pop().unwrap();
        check_wire(&got);
        assert_eq!(got["rcpt"], json!(["анна@xn--e1afmkfd.xn--p1ai"]));
        assert_eq!(got["mail_options"], json!(["SMTPUTF8", "BODY=8BITMIME"]));
        assert_eq!(got["to"], json!([["Анна", "анна@xn--e1afmkfd.xn--p1ai"]]));
    });
}

#[test]
fn own_headers_ids_and_dates() {
    with_server(|server| async move {
        let ids = (0..40).map(|n| format!("<{n:040}@example.org>")).collect::<Vec<_>>().join(" ");
        let message = hello()
            .header("References", &ids)
            .header("X-Twice", "1")
            .header("X-Twice", "2 =?utf-8?q?not=20code?=")
            .header("X-Spaces", " a  b ")
            .message_id("own.1@example.org")
            .date_ms(1_000_000_000_000);
        let report = mailer(&server, "").send(&message).await.unwrap();
        assert_eq!(report.message_id, "<own.1@example.org>");
        let got = server.messages().pop().unwrap();
        check_wire(&got);
        let header = |name: &str| -> Vec<&str> {
            let all = got["headers"].as_array().unwrap().iter();
            all.filter(|one| one[0] == name).map(|one| one[1].as_str().unwrap()).collect()
        };
        assert_eq!(header("References"), [ids]);
        assert_eq!(header("X-Twice"), ["1", "2 =?utf-8?q?not=20code?="]);
        assert_eq!(header("X-Spaces"), [" a  b "]);
        assert_eq!(header("Date"), ["Sun, 09 Sep 2001 01:46:40 +0000"]);
        assert_eq!(header("Message-ID"), ["<own.1@example.org>"]);
    });
}

#[test]
fn what_is_wrong_is_said_before_anything_is_sent() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&max_size=5000");
        for (message, field) in [
            (Message::new(), "to:"),
            (hello().to("nobody"), "to[1]:"),
            (hello().subject("a\r\nBcc: x@y.z"), "subject:"),
            (hello().header("X", "a\r\nBcc: x@y.z"), "headers[0]:"),
            (hello().attach(Attachment::path("/nowhere")), "attachments[0].path:"),
            (hello().attach(Attachment::bytes("a", vec![0; 6_000])), "attachments[0]"),
            (hello().text("x".repeat(6_000)), "message:"),
        ] {
            let error = mailer.send(&message).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().starts_with(field), "{field} {error}");
        }
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn a_batch_tells_of_each() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&pool=3");
        let mut messages: Vec<_> =
            (0..20).map(|n| Message::new().to(format!("r{n}@example.org")).subject(n.to_string())).collect();
        messages[7] = Message::new();
        let batch = mailer.send_many(messages);
        assert_eq!(batch.total(), 20);
        let mut seen = [0; 20];
        while let Some(sent) = batch.next().await.unwrap() {
            seen[sent.index] += 1;
            match sent.result {
                Ok(report) => assert_eq!(report.recipients[0].status, Status::Accepted),
                Err(error) => assert_eq!((sent.index, error.code()), (7, Code::InvalidArgument)),
            }
        }
        assert_eq!(seen, [1; 20]);
        assert_eq!(server.messages().len(), 19);
        assert!(server.connections() <= 3);
    });
}
