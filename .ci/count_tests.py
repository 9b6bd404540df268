#!/usr/bin/env python3
"""Counts the test cases of one `bazel test`: count_tests.py EVENTS prints "PASSED FAILED".

EVENTS is the file that --build_event_json_file wrote. Cases come from the test.xml of each test target. A target that
passed counts as one case at least, one that failed (a crash, a timeout, a build error) as one failure at least, and
skipped cases count as neither. Any other target that does not build is one failure.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def read_events(path):
    """Returns a verdict for each test target or broken target, and the test.xml files of the tests' last attempts."""
    verdicts = {}
    xml_files = {}
    with open(path, encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            identity = event.get("id", {})
            if "targetCompleted" in identity:
                skipped = event.get("aborted", {}).get("reason") == "SKIPPED"  # not made for this configuration
                if not skipped and not event.get("completed", {}).get("success", False):
                    verdicts.setdefault(identity["targetCompleted"]["label"], "FAILED TO BUILD")
            elif "testSummary" in identity:
                verdict = event.get("testSummary", {}).get("overallStatus", "NO_STATUS")
                verdicts[identity["testSummary"]["label"]] = verdict
            elif "testResult" in identity:
                result = identity["testResult"]
                run = (result.get("run"), result.get("shard"))
                for output in event.get("testResult", {}).get("testActionOutput", []):
                    if output["name"] == "test.xml":
                        xml_files.setdefault(result["label"], {})[run] = output["uri"]
    return verdicts, xml_files


def count_cases(uri):
    """Returns how many cases of a test.xml passed and failed; none where the file cannot be read."""
    try:
        root = ElementTree.parse(urllib.parse.unquote(urllib.parse.urlparse(uri).path)).getroot()
    except (OSError, ElementTree.ParseError):
        return 0, 0
    passed = failed = 0
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.get("result") not in ("skipped", "suppressed") and case.get("status") != "notrun":
            passed += 1
    return passed, failed


def main():
    verdicts, xml_files = read_events(sys.argv[1])
    all_passed = all_failed = 0
    for label, verdict in verdicts.items():
        counts = [count_cases(uri) for uri in xml_files.get(label, {}).values()]
        passed = sum(count[0] for count in counts)
        failed = sum(count[1] for count in counts)
        if verdict == "PASSED":
            passed = max(passed, 1)
        else:
            failed = max(failed, 1)
        all_passed += passed
        all_failed += failed
    print(all_passed, all_failed)


if __name__ == "__main__":
    main()
