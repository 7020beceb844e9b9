//! What may stand in a folder beside plain files, and how many of those.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use super::*;

fn told(scan: &Scan) -> Vec<String> {
    scan.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_no_file_of_the_folder_is_passed_over_by_name() {
    let temp = Temp::new("kinds");
    let _socket = UnixListener::bind(temp.0.join("socket.yaml")).expect("bound");
    for (target, link) in [
        ("loop.yaml", "loop.yaml"),
        ("nowhere", "gone.yaml"),
        (".", "back"),
        ("/", "out.yaml"),
    ] {
        symlink(target, temp.0.join(link)).expect("linked");
    }
    fs::create_dir(temp.0.join("folder.yaml")).expect("created");
    // The file system's own folder, for its owner alone.
    let own = temp.0.join("lost+found");
    fs::create_dir(&own).expect("created");
    temp.write("lost+found/a.yaml", "kind: [", OLD);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o0)).expect("set");
    temp.write("folder.yaml/a.yaml", REVIEWS, OLD);
    let deep = temp.0.join(["d"; 17].join("/"));
    fs::create_dir_all(&deep).expect("created");
    let mut folder = temp.folder();
    let scan = folder.scan();
    assert_eq!(scan.objects.len(), 1);
    let mut told = told(&scan);
    told.sort_unstable();
    let expected = [
        ("/back", "a link to a folder is followed only"),
        ("/d", "more than 16 folders"),
        ("/gone.yaml", "No such file"),
        ("/loop.yaml", "symbolic links"),
        ("/out.yaml", "a link to a folder is followed only"),
        ("/socket.yaml", "a pipe, socket or device"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (text, (name, what)) in told.iter().zip(expected) {
        assert!(text.contains(name) && text.contains(what), "{told:#?}");
    }
    // Of all these only the loop may hide something.
    let unread: Vec<_> = scan.unread.iter().map(|f| &*f.file).collect();
    assert!(
        matches!(&unread[..], [one] if one.ends_with("/loop.yaml")),
        "{unread:?}"
    );
    // They are told of once, and nothing is waited for.
    let scan = folder.scan();
    assert!(!scan.changed && !scan.unsettled, "{scan:?}");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).expect("set");
}

#[test]
fn a_link_to_nothing_is_believed_after_a_while() {
    let temp = Temp::new("dangling");
    temp.write("a.yaml", REVIEWS, OLD);
    let mut folder = temp.folder();
    folder.scan();
    for link in ["b.yaml", "a.yaml"] {
        let path = temp.0.join(link);
        let _ = fs::remove_file(&path);
        symlink("nowhere", path).expect("linked");
    }
    let scan = settled(&mut folder, |scan| scan.findings.len() == 2);
    assert_eq!(scan.objects.len(), 1, "the last good version stays");
    let scan = folder.scan();
    assert!(!scan.changed && !scan.unsettled, "{scan:?}");
}

#[test]
fn a_volume_of_kubernetes_is_swapped_as_a_whole() {
    let temp = Temp::new("volume");
    let rule = |subset: &str| REVIEWS.replace("subset: v1", &format!("subset: {subset}"));
    for (copy, subset) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir_all(temp.0.join(copy).join("sub")).expect("created");
        temp.write(&format!("{copy}/sub/a.yaml"), &rule(subset), OLD);
        temp.write(
            &format!("{copy}/b.yaml"),
            &rule(subset).replace("name: reviews", "name: other"),
            OLD,
        );
    }
    for (target, link) in [
        ("..1", "..data"),
        ("..data/sub", "sub"),
        ("..data/b.yaml", "b.yaml"),
    ] {
        symlink(target, temp.0.join(link)).expect("linked");
    }
    let subsets = |scan: &Scan| -> usize {
        let text = format!("{:?}", scan.objects);
        text.matches("\"two\"").count()
    };
    let mut folder = temp.folder();
    let scan = folder.scan();
    assert_eq!((scan.objects.len(), subsets(&scan)), (2, 0), "{scan:?}");
    assert_eq!(told(&scan), [""; 0]);
    symlink("..2", temp.0.join("..new")).expect("linked");
    fs::rename(temp.0.join("..new"), temp.0.join("..data")).expect("swapped");
    fs::remove_dir_all(temp.0.join("..1")).expect("removed");
    let scan = settled(&mut folder, |scan| subsets(scan) == 2);
    assert_eq!((scan.objects.len(), scan.findings.len()), (2, 0));
}

#[test]
fn an_edit_that_keeps_length_and_time_is_seen() {
    let temp = Temp::new("same-time");
    temp.write("a.yaml", REVIEWS, OLD);
    let path = temp.0.join("a.yaml");
    let modified = fs::metadata(&path).and_then(|m| m.modified());
    let mut folder = temp.folder();
    assert_eq!(subset(&folder.scan()), "v1");
    fs::write(&path, REVIEWS.replace("subset: v1", "subset: v2")).expect("file written");
    let file = fs::File::options().write(true).open(&path);
    let file = file.expect("file opened");
    file.set_modified(modified.expect("a time")).expect("set");
    assert_eq!(subset(&folder.scan()), "v2");
}

#[test]
fn a_sub_folder_that_cannot_be_read_keeps_what_it_held() {
    let temp = Temp::new("closed");
    let sub = temp.0.join("sub");
    fs::create_dir(&sub).expect("created");
    temp.write("sub/a.yaml", REVIEWS, OLD);
    temp.write(
        "b.yaml",
        &REVIEWS.replace("name: reviews", "name: other"),
        OLD,
    );
    let mode = |mode| fs::set_permissions(&sub, fs::Permissions::from_mode(mode)).expect("set");
    let mut folder = temp.folder();
    assert_eq!(folder.scan().objects.len(), 2);
    mode(0);
    // The superuser may read it all the same.
    let closed = fs::read_dir(&sub).is_err();
    let (scan, first) = (folder.scan(), temp.folder().scan());
    mode(0o700);
    assert_eq!(scan.objects.len(), 2);
    let unread = |told: &String| told.contains("/sub") && told.contains("cannot be read");
    assert_eq!(told(&scan).iter().any(unread), closed);
    assert_eq!(first.objects.len(), 2 - usize::from(closed));
    assert_eq!(first.unread.iter().any(|f| unread(&f.to_string())), closed);
    assert_eq!(told(&folder.scan()), [""; 0]);
}

#[test]
fn files_over_the_limit_are_refused_and_what_is_in_force_stays() {
    let temp = Temp::new("limit");
    let rule = |name: &str| REVIEWS.replace("name: reviews", &format!("name: {name}"));
    let write = |name: &str| temp.write(&format!("{name}.yaml"), &rule(name), OLD);
    let open = || {
        let options = FolderOptions {
            max_files: 2,
            ..FolderOptions::default()
        };
        Folder::new(&temp.0, options)
    };
    write("b");
    write("c");
    let mut folder = open();
    assert_eq!(folder.scan().objects.len(), 2);
    // A new file that comes first by name pushes nothing out, and closes nothing.
    write("a");
    let scan = folder.scan();
    assert_eq!((scan.objects.len(), scan.lost.len()), (2, 0));
    let names: Vec<_> = scan.objects.iter().map(|o| &*o.name).collect();
    assert_eq!(names, ["b", "c"]);
    let [refused] = &told(&scan)[..] else {
        panic!("{scan:?}")
    };
    assert!(refused.contains("a.yaml") && refused.contains("more than 2 files"));
    assert!(!scan.unsettled && !folder.scan().changed);
    // At the start nobody knows what it holds.
    assert_eq!(open().scan().unread.len(), 1);
    // Once there is room it is read.
    fs::remove_file(temp.0.join("c.yaml")).expect("removed");
    let scan = settled(&mut folder, |scan| {
        scan.findings.is_empty() && scan.objects.len() == 2
    });
    assert_eq!(&*scan.objects[0].name, "a");
}
