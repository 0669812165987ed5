"""Why an answer of ours differs from Apache Kafka's: each difference that is left, and its reason.

(case, field, reason) or (case, field, reason, test of our value and Kafka's); case and field are regular expressions, searched in `Produce 7 codec 1 over
none, to t` and in `responses.[t].partition_responses[0].error_code`. An empty field is the answer as a whole: a side closed the connection or did not answer.
A reason that nothing needs any more fails the run.
"""

ALL = ""


def kafka_says_nothing(ours, theirs):
    return ours == "a text" and theirs in (None, "")


def kafka_did_not_answer(ours, theirs):
    return theirs == "no answer"


def only_ours(ours, theirs):
    return theirs == "not there"


def only_kafkas(ours, theirs):
    return ours == "not there"


def no_partitions(ours, theirs):
    """A topic of which no partition was named: in our answer with an empty list, in Kafka's not at all."""
    def left(side):
        return [topic for topic in side if any(item for item in topic.values() if isinstance(item, list))]
    if isinstance(ours, dict):
        return theirs == "not there" and not any(isinstance(item, list) and item for item in ours.values())
    return isinstance(ours, list) and isinstance(theirs, list) and left(ours) == theirs


# Where Kafka's answer, or a part of it, is UNKNOWN_SERVER_ERROR: the request ran into an exception that nobody expected, which its log has as an ERROR.
# (case, reason); it explains the whole answer.
KAFKA_FAILS = [
    (r"^Produce .*(codec|gzip)", "Kafka fails where it decompresses; here a body that its codec cannot read is INVALID_RECORD, after which no client tries again"),
    (r"^Fetch .*max_bytes -", "Kafka fails; a size below 0 is 0 here"),
    (r"^(Fetch|ListOffsets) .* isolation_level ", "Kafka fails; an isolation level that does not exist is read_uncommitted here"),
    (r"^Fetch .* session_id ", "Kafka fails; here the answer has no session"),
    (r"^IncrementalAlterConfigs .*(config_operation|configs and another|operation 4)", "Kafka fails; an operation that does not exist is INVALID_REQUEST here"),
    (r"^CreatePartitions .*count 2147483647", "Kafka fails when it counts; here the partitions are too many"),
    (r"^DescribeTopicPartitions .*name ''", "Kafka fails; here the name is not legal"),
    (r"^Metadata 1[23] topics.name null", "Kafka fails; here no topic is named, and none is in the answer"),
    (r"^Produce .*(time -5|time far back|producer without epoch|producer -2), to zipped", "Kafka fails where it compresses such records for the topic; here they are stored"),
    (r"^WriteTxnMarkers .*producer_(id|epoch) -1", "Kafka fails where the marker has no producer; here nothing is written or the epoch is refused"),
]

REASONS = [
    (ALL, r"error_message$", "A refusal has its reason in words, where Kafka has none.", kafka_says_nothing),
    (r"^DescribeConfigs", r"error_message$", "On success Kafka's message is empty, ours null.", lambda ours, theirs: (ours, theirs) == (None, "")),
    (r"^FindCoordinator", r"error_message$", "On success Kafka's message is empty or NONE, ours null.", lambda ours, theirs: ours is None),
    (r"^UpdateFeatures", r"error_message$", "On success Kafka's message is NONE, ours null.", lambda ours, theirs: ours is None),

    (r"^Produce .*(records null|null, to )", r"^$", "Kafka never answers: it fails where it reads the records.", kafka_did_not_answer),
    (r"^AddPartitionsToTxn .*transactions empty", r"^$", "Kafka never answers: it waits for as many results as there are transactions.", kafka_did_not_answer),
    (r"^JoinGroup .*protocols repeated", r"^$", "Kafka never answers: it fails where it chooses the protocol.", kafka_did_not_answer),
    (r"^(Incremental)?AlterConfigs .*resources repeated", r"^$", "Kafka never answers.", kafka_did_not_answer),
    (r"^WriteTxnMarkers .*(empty|repeated)", r"^$", "Kafka never answers: it waits for markers that it does not write.", kafka_did_not_answer),
    (r"^ListGroups", r"groups", "The groups of the joins above that Kafka did not answer are in another state there."),

    (r"^Produce .*offset delta", r"", "Kafka stores a batch whose records count their offsets wrongly; here it is refused, because consumers would get wrong offsets."),
    (r"^Produce .*epoch -2", r"(error_code|record_errors)$", "Both refuse a negative epoch, Kafka after it has looked at the records."),
    (r"^Produce .*(producer without epoch|of a new producer)", r"log_append_time_ms$", "For a batch that it has already, Kafka tells the time of the batch as if it had set it."),
    (r"^Produce .*gzip with bytes behind", r"", "Kafka ignores bytes after a gzip body and stores them; here the body is refused, because other readers fail at it."),
    (r"^Produce .*(data repeated|topic_data and another)", r"partition_responses$", "Kafka keeps the last of two batches for a partition; here both are appended and both answered."),
    (r" empty$", r"(topics|responses|markers)(\.\[[a-z]*\])?$", "A topic without partitions is in our answer, and left out of Kafka's.", no_partitions),
    (r"^ListOffsets .*topics.partitions repeated", r"partitions$", "Kafka answers once for a partition that is named twice."),
    (r"^ListOffsets .*topics repeated", r"topics", "Kafka refuses a partition that is named in two entries of its topic; here it is answered."),
    (r"^Fetch .*(repeated|topics and another)", r"partitions$", "Kafka answers once for a partition that is named twice."),
    (r"^Fetch", r"aborted_transactions$", "An error has no list of aborted transactions here, and an empty one in Kafka.", lambda ours, theirs: (ours, theirs) == (None, [])),
    (r"^Fetch .* replica_id \d", r"responses", "Kafka refuses a fetch by a broker that does not follow the partition; here it is read as a consumer's."),
    (r"^Metadata [0-3] ", r"topics\.\[none\](\.(error_code|partitions))?$", "A topic that Metadata creates is served when it answers; Kafka says first that it is not there, and leaves it out of all topics."),
    (r"^WriteTxnMarkers .*partition_indexes empty", r"^markers$", "A topic without partitions is in our answer, and left out of Kafka's."),
    (r"^WriteTxnMarkers .*markers (repeated|and another)", r"^markers", "Kafka answers once for a producer that is named twice."),
    (r"^WriteTxnMarkers", r"error_code$", "Both refuse a marker that is old in two ways; Kafka tells of the producer's epoch, we of the coordinator's.", lambda ours, theirs: (ours, theirs) in ((52, 47), (52, -1))),
    (r"^DescribeQuorum", r"(log_end_offset|high_watermark|leader_epoch|last_caught_up_timestamp|last_fetch_timestamp)$", "Each has a metadata log of its own."),
    (r"^DescribeQuorum 2", r"error_message$", "Without an error Kafka sends an empty message; here it is null, as in all other responses.", lambda ours, theirs: (ours, theirs) == (None, "")),
    (r"^DescribeQuorum 2", r"nodes\[0\]\.listeners", "A quorum of one voter has no listener for other controllers yet."),
    (r"^DescribeProducers", r"active_producers", "What the markers above left behind differs as they do."),
    (r"^OffsetDelete", r"", "A group that has lost its last offset is gone at once; Kafka drops it at its next check."),

    (r"^ApiVersions", r"^api_keys", "Some APIs are not served yet (docs/protocol.md)."),
    (r"^ApiVersions", r"^(finalized|supported)_features", "Only the features that something follows from are there."),

    (r"^(CreateTopics|DescribeConfigs)", r"\[(errors\.deadletterqueue[a-z.]*|max\.decompressed\.message\.bytes|(log\.)?remote\.copy\.lag\.(bytes|ms)|group\.streams\.[a-z.]*|sasl\.oauthbearer\.allow[a-z.]*)\]$", "Settings of Kafka 4.4, which 4.3.1 does not have.", only_ours),
    (r"^(CreateTopics|DescribeConfigs)", r"\[min\.insync\.replicas\]", "Kafka sets it for the cluster when it begins to use eligible leader replicas."),
    (r"^DescribeConfigs .*all of 4", r"\[(compressed\.batches\.check|durability\.profile|http\.allowed\.hosts)\]$", "Settings of our own.", only_ours),
    (r"^DescribeConfigs .*all of 4", r"\[(advertised\.listeners|broker\.id|controller\.[a-z.]*|inter\.broker\.listener\.name|listener\.security\.protocol\.map|listeners|log\.dirs|node\.id|offsets\.topic\.replication\.factor|process\.roles|share\.coordinator\.[a-z.]*|transaction\.state\.log\.[a-z.]*|group\.initial\.rebalance\.delay\.ms)\]\.(value|config_source|synonyms.*)$", "The two were started with other values."),
    (r"^DescribeConfigs .*all of 4", r"\[queued\.max\.request\.bytes\]", "It has a limit here (docs/configuration.md)."),
    (r"^DescribeConfigs .*all of 4", r"read_only$", "Changes here only by a restart (docs/configuration.md).", lambda ours, theirs: (ours, theirs) == (True, False)),
    (r"^DescribeConfigs .*all of 8", r"configs", "Loggers are Kafka's own classes; --log sets ours.", only_kafkas),
    (r"^DescribeConfigs .*all of (16|32)", r"configs", "Settings of client metrics and of groups are not served yet.", only_kafkas),
    (r"^IncrementalAlterConfigs .*broker '.*' (log\.cleaner\.(backoff\.ms|io\.max\.bytes\.per\.second|dedupe\.buffer\.size)|max\.connections|producer\.id\.expiration\.ms|sasl\.|ssl\.)", r"error", "Changes here only by a restart (docs/configuration.md)."),
    (r"^IncrementalAlterConfigs .*broker '.*' (no\.such\.setting)?='", r"error", "Kafka keeps what it does not know for its plugins; a name that is not known is an error here."),
    (r"^IncrementalAlterConfigs .*broker '.*' (background\.threads|num\.(io|network|recovery|replica)[a-z.]*|remote\.log\.[a-z.]*)='1'", r"error", "Kafka changes the number of threads at most by half; here the number has no effect."),
    (r"^IncrementalAlterConfigs .*broker '.*' (metric\.reporters|max\.connections\.per\.ip\.overrides)='", r"error", "Kafka loads the class or reads the list; here it has no effect and is kept as it is."),
    (r"^IncrementalAlterConfigs .*broker '1' min\.insync\.replicas", r"error", "Kafka refuses it for one broker while eligible leader replicas are in use."),
]
