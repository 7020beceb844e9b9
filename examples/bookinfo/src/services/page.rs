//! The HTML of productpage.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;

use super::productpage::{Answer, Product};

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Simple Bookstore App</title>\n\
    <link rel=\"stylesheet\" href=\"/static/tailwind/tailwind.css\">\n</head>\n<body>\n";
const FOOT: &str = "</body>\n</html>\n";

/// The page of a book: title, details, reviews, and who is signed in.
pub(super) fn product(
    product: &Product,
    details: &Answer,
    reviews: &Answer,
    user: Option<&str>,
) -> String {
    let mut page = String::with_capacity(8192);
    page.push_str(HEAD);
    navigation(&mut page, user);
    let _ = write!(
        page,
        "<main>\n<section id=\"product\">\n<h1>{}</h1>\n<p>{}</p>\n</section>\n",
        text(product.title),
        product.description_html
    );
    details_section(&mut page, details);
    reviews_section(&mut page, reviews);
    page.push_str("</main>\n");
    page.push_str(FOOT);
    page
}

/// The start page: what bookinfo is made of, and the way in.
pub(super) fn index() -> String {
    format!(
        "{HEAD}<main>\n<h1>Simple Bookstore App</h1>\n<p>productpage asks details and reviews; reviews (v2 and v3) asks \
         ratings.</p>\n<p><a href=\"/productpage?u=normal\">Normal user</a></p>\n\
         <p><a href=\"/productpage?u=test\">Test user</a></p>\n</main>\n{FOOT}"
    )
}

fn navigation(page: &mut String, user: Option<&str>) {
    page.push_str("<nav>\n<a class=\"brand\" href=\"/productpage\">BookInfo Sample</a>\n");
    match user {
        Some(user) => {
            let _ = writeln!(
                page,
                "<span class=\"user\"><img src=\"/static/img/izzy.png\" alt=\"\"> {} <a href=\"/logout\">Sign out</a></span>",
                text(user)
            );
        }
        None => page.push_str(
            "<form method=\"post\" action=\"/login\" name=\"login_form\">\n\
             <input name=\"username\" required placeholder=\"Username\" aria-label=\"Username\">\n\
             <input name=\"passwd\" type=\"password\" placeholder=\"Password\" aria-label=\"Password\">\n\
             <button type=\"submit\" id=\"sign-in-button\">Sign in</button>\n</form>\n",
        ),
    }
    page.push_str("</nav>\n");
}

fn details_section(page: &mut String, details: &Answer) {
    page.push_str("<section id=\"details\">\n");
    if details.status != StatusCode::OK {
        unavailable(page, "details", &details.json);
    } else {
        page.push_str("<h2>Book Details</h2>\n<table>\n");
        for (label, field) in [
            ("ISBN-10", "ISBN-10"),
            ("Publisher", "publisher"),
            ("Pages", "pages"),
            ("Type", "type"),
            ("Language", "language"),
        ] {
            let value = details.json.get(field).map_or_else(String::new, plain);
            let _ = writeln!(page, "<tr><th>{label}</th><td>{}</td></tr>", text(&value));
        }
        page.push_str("</table>\n");
    }
    page.push_str("</section>\n");
}

fn reviews_section(page: &mut String, reviews: &Answer) {
    page.push_str("<section id=\"reviews\">\n");
    if reviews.status != StatusCode::OK {
        unavailable(page, "reviews", &reviews.json);
    } else {
        page.push_str("<h2>Book Reviews</h2>\n");
        let served_by = reviews.json.get("podname").map_or_else(String::new, plain);
        for review in reviews
            .json
            .get("reviews")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            page.push_str("<article>\n");
            if let Some(rating) = review.get("rating") {
                stars(page, rating);
            }
            let _ = write!(
                page,
                "<blockquote>\"{}\"</blockquote>\n<p class=\"by\">{}</p>\n<p class=\"pod\">Reviews served by: {}</p>\n</article>\n",
                text(&review.get("text").map_or_else(String::new, plain)),
                text(&review.get("reviewer").map_or_else(String::new, plain)),
                text(&served_by)
            );
        }
    }
    page.push_str("</section>\n");
}

/// Five stars, as many of them full as were given, in their colour; or why there are none.
fn stars(page: &mut String, rating: &Value) {
    if let Some(given) = rating.get("stars").and_then(Value::as_u64) {
        let full = usize::try_from(given.min(5)).unwrap_or(5);
        let color = rating.get("color").map_or_else(String::new, plain);
        let _ = writeln!(
            page,
            "<p class=\"stars text-{}-500\" title=\"{given} of 5\">{}{}</p>",
            text(&color),
            "★".repeat(full),
            "☆".repeat(5 - full)
        );
    } else if let Some(error) = rating.get("error").and_then(Value::as_str) {
        let _ = writeln!(page, "<p class=\"error\">{}</p>", text(error));
    }
}

fn unavailable(page: &mut String, what: &str, json: &Value) {
    let _ = writeln!(
        page,
        "<p class=\"error\">Error fetching product {what}!</p>"
    );
    if let Some(error) = json.get("error").and_then(Value::as_str) {
        let _ = writeln!(page, "<p>{}</p>", text(error));
    }
}

/// A JSON value as a reader wants it: text without quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Text as HTML.
fn text(raw: &str) -> String {
    raw.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BOOK: Product = super::super::productpage::PRODUCTS[0];

    fn answer(status: u16, json: Value) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            json,
        }
    }

    #[test]
    fn stars_show_number_and_colour() {
        let reviews = json!({"podname": "reviews-v3", "reviews": [
            {"reviewer": "Reviewer1", "text": "good", "rating": {"stars": 4, "color": "red"}},
            {"reviewer": "Reviewer2", "text": "fair", "rating": {"error": "Ratings service is currently unavailable"}}]});
        let page = product(
            &BOOK,
            &answer(200, json!({"pages": 200})),
            &answer(200, reviews),
            None,
        );
        assert!(
            page.contains("text-red-500")
                && page.contains("★★★★☆")
                && page.contains("Reviews served by: reviews-v3")
        );
        assert!(
            page.contains("Ratings service is currently unavailable")
                && page.contains("<td>200</td>")
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let gone = || answer(503, json!({"error": "Sorry, gone."}));
        let page = product(&BOOK, &gone(), &gone(), None);
        assert!(
            page.contains("Error fetching product details!")
                && page.contains("Error fetching product reviews!")
        );
        assert!(page.contains("Sorry, gone.") && !page.contains("Book Reviews"));
    }

    #[test]
    fn a_user_cannot_write_html() {
        let page = product(
            &BOOK,
            &answer(200, json!({})),
            &answer(200, json!({})),
            Some("<script>"),
        );
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
