//! Everything that is advertised is served: each (API, version) gets a valid request and gives a whole answer.

mod common;

use bytes::Bytes;
use common::transactions::*;
use common::{Client, fetch_request, produce_request, start};
use dlog::coordinator::Identity;
use dlog::protocol::generated::*;
use dlog::protocol::{ApiKey, ErrorCode, Message, Request, encode_request};
use dlog::records::{BatchBuilder, NewRecord};
use dlog::server::SERVED;

async fn versions<R: Request>(client: &mut Client, make: impl Fn(i16) -> R, check: impl Fn(i16, &R::Response)) -> usize
where
    R::Response: std::fmt::Debug,
{
    let served = dlog::server::served(R::KEY).unwrap_or_else(|| panic!("{} is not served", R::NAME));
    for version in served.min..=served.max {
        let response = client.call(&make(version), version).await;
        check(version, &response);
        check_messages(R::NAME, version, &response);
    }
    (served.max - served.min + 1) as usize
}

/// kafkajs and others take a message of "" for an error: no message of an answer is ever empty, and where every error code of the answer is 0 all
/// messages are null. It looks at the answer as it is printed, so that it knows of every field that ends in `message`, also of those to come.
fn check_messages(api: &str, version: i16, response: &impl std::fmt::Debug) {
    let text = format!("{response:?}");
    let after = |field: &'static str| text.match_indices(field).map(|(at, _)| &text[at + field.len()..]).collect::<Vec<_>>();
    let messages = after("message: ");
    assert!(!messages.iter().any(|rest| rest.starts_with("Some(\"\")")), "{api} {version} has an empty message: {text}");
    let is_success = after("error_code: ").iter().all(|rest| rest.starts_with("0,") || rest.starts_with("0 }"));
    let has_message = messages.iter().any(|rest| rest.starts_with("Some("));
    assert!(!is_success || !has_message, "{api} {version} succeeds with a message: {text}");
}

#[test]
fn an_empty_message_and_one_on_success_are_found() {
    let fine = delete_topics::DeletableTopicResult { error_code: 3, error_message: Some("unknown".into()), ..Default::default() };
    check_messages("DeleteTopics", 6, &fine);
    check_messages("DeleteTopics", 6, &delete_topics::DeletableTopicResult::default());
    for bad in [(3, ""), (0, ""), (0, "fine")] {
        let result = delete_topics::DeletableTopicResult { error_code: bad.0, error_message: Some(bad.1.into()), ..Default::default() };
        assert!(std::panic::catch_unwind(|| check_messages("DeleteTopics", 6, &result)).is_err(), "{bad:?}");
    }
}

fn batch() -> Bytes {
    BatchBuilder::new().record(NewRecord::keyed(b"k", Some(b"v"))).build(1_700_000_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_advertised_version_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let client = &mut Client::connect(&broker).await;
    client.create_topic("t", 2, &[]).await;
    let described = client.call(&metadata::MetadataRequest { topics: None, ..Default::default() }, 12).await;
    let id = described.topics[0].topic_id;
    let mut count = 0;
    let fine = |code: i16| assert_eq!(code, 0, "{:?}", ErrorCode::from_code(code));

    count += versions::<api_versions::ApiVersionsRequest>(
        client,
        |_| api_versions::ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..Default::default()
        },
        |_, response| {
            fine(response.error_code);
            assert_eq!(response.api_keys.len(), SERVED.len());
        },
    )
    .await;
    count += versions::<metadata::MetadataRequest>(
        client,
        |_| {
            let topic = metadata::MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
            metadata::MetadataRequest { topics: Some(vec![topic]), ..Default::default() }
        },
        |_, response| {
            fine(response.topics[0].error_code);
            assert_eq!(response.topics[0].partitions.len(), 2);
        },
    )
    .await;
    count += versions::<produce::ProduceRequest>(
        client,
        |version| {
            let mut request = produce_request("t", 0, &batch(), -1);
            if version >= 13 {
                request.topic_data[0].topic_id = id;
            }
            request
        },
        |_, response| fine(response.responses[0].partition_responses[0].error_code),
    )
    .await;
    count += versions::<fetch::FetchRequest>(
        client,
        |version| {
            let mut request = fetch_request("t", &[(0, 0)], 1, 100);
            if version >= 13 {
                request.topics[0].topic_id = id;
            }
            request
        },
        |_, response| {
            let partition = &response.responses[0].partitions[0];
            fine(partition.error_code);
            assert!(partition.records.as_ref().is_some_and(|r| !r.is_empty()));
        },
    )
    .await;
    count += versions::<list_offsets::ListOffsetsRequest>(
        client,
        |_| {
            let partition = list_offsets::ListOffsetsPartition { timestamp: -1, ..Default::default() };
            let topic = list_offsets::ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
            list_offsets::ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() }
        },
        |_, response| {
            fine(response.topics[0].partitions[0].error_code);
            assert_eq!(response.topics[0].partitions[0].offset, 11);
        },
    )
    .await;
    count += versions::<offset_for_leader_epoch::OffsetForLeaderEpochRequest>(
        client,
        |_| {
            let partition =
                offset_for_leader_epoch::OffsetForLeaderPartition { leader_epoch: 0, current_leader_epoch: -1, ..Default::default() };
            let topic = offset_for_leader_epoch::OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] };
            offset_for_leader_epoch::OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() }
        },
        |_, response| {
            fine(response.topics[0].partitions[0].error_code);
            assert_eq!(response.topics[0].partitions[0].end_offset, 11);
        },
    )
    .await;
    count += versions::<find_coordinator::FindCoordinatorRequest>(
        client,
        |_| find_coordinator::FindCoordinatorRequest { key: "g".into(), coordinator_keys: vec!["g".into()], ..Default::default() },
        |version, response| fine(if version >= 4 { response.coordinators[0].error_code } else { response.error_code }),
    )
    .await;
    count += versions::<offset_commit::OffsetCommitRequest>(
        client,
        |version| {
            let partition = offset_commit::OffsetCommitRequestPartition { committed_offset: 5, ..Default::default() };
            let topic = offset_commit::OffsetCommitRequestTopic { name: "t".into(), topic_id: id, partitions: vec![partition] };
            let topic =
                if version >= 10 { topic } else { offset_commit::OffsetCommitRequestTopic { topic_id: Default::default(), ..topic } };
            offset_commit::OffsetCommitRequest {
                group_id: "g".into(),
                generation_id_or_member_epoch: -1,
                topics: vec![topic],
                ..Default::default()
            }
        },
        |_, response| fine(response.topics[0].partitions[0].error_code),
    )
    .await;
    count += versions::<offset_fetch::OffsetFetchRequest>(
        client,
        |_| {
            let topics = offset_fetch::OffsetFetchRequestTopics { name: "t".into(), topic_id: id, partition_indexes: vec![0] };
            let group = offset_fetch::OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topics]), ..Default::default() };
            let topic = offset_fetch::OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] };
            offset_fetch::OffsetFetchRequest { group_id: "g".into(), topics: Some(vec![topic]), groups: vec![group], ..Default::default() }
        },
        |version, response| {
            let offset = if version >= 8 {
                response.groups[0].topics[0].partitions[0].committed_offset
            } else {
                response.topics[0].partitions[0].committed_offset
            };
            assert_eq!(offset, 5);
        },
    )
    .await;
    count += versions::<join_group::JoinGroupRequest>(
        client,
        |version| join_group::JoinGroupRequest {
            group_id: format!("join-{version}"),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![join_group::JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
            ..Default::default()
        },
        |version, response| {
            let expected = if version >= 4 { ErrorCode::MemberIdRequired } else { ErrorCode::None };
            assert_eq!(response.error_code, expected.code());
            assert!(response.member_id.starts_with("test-"));
        },
    )
    .await;
    let unknown = ErrorCode::UnknownMemberId.code();
    count += versions::<sync_group::SyncGroupRequest>(
        client,
        |_| sync_group::SyncGroupRequest {
            group_id: "nobody".into(),
            member_id: "m".into(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            ..Default::default()
        },
        |_, response| assert_eq!(response.error_code, unknown),
    )
    .await;
    count += versions::<heartbeat::HeartbeatRequest>(
        client,
        |_| heartbeat::HeartbeatRequest { group_id: "nobody".into(), member_id: "m".into(), ..Default::default() },
        |_, response| assert_eq!(response.error_code, unknown),
    )
    .await;
    count += versions::<leave_group::LeaveGroupRequest>(
        client,
        |_| {
            let member = leave_group::MemberIdentity { member_id: "m".into(), ..Default::default() };
            leave_group::LeaveGroupRequest { group_id: "nobody".into(), member_id: "m".into(), members: vec![member] }
        },
        |version, response| assert_eq!(if version >= 3 { response.members[0].error_code } else { response.error_code }, unknown),
    )
    .await;
    count += versions::<describe_groups::DescribeGroupsRequest>(
        client,
        |_| describe_groups::DescribeGroupsRequest { groups: vec!["g".into(), "nobody".into()], ..Default::default() },
        |version, response| {
            fine(response.groups[0].error_code);
            assert_eq!(response.groups[0].group_state, "Empty");
            assert_eq!(response.groups[1].group_state, "Dead");
            assert_eq!(response.groups[1].error_code, if version >= 6 { ErrorCode::GroupIdNotFound.code() } else { 0 });
        },
    )
    .await;
    count += versions::<list_groups::ListGroupsRequest>(
        client,
        |_| list_groups::ListGroupsRequest::default(),
        |_, response| {
            fine(response.error_code);
            assert!(response.groups.iter().any(|g| g.group_id == "g"));
        },
    )
    .await;
    count += versions::<create_topics::CreateTopicsRequest>(
        client,
        |version| {
            let name = format!("created-{version}");
            let topic = create_topics::CreatableTopic { name, num_partitions: -1, replication_factor: -1, ..Default::default() };
            create_topics::CreateTopicsRequest { topics: vec![topic], ..Default::default() }
        },
        |version, response| {
            fine(response.topics[0].error_code);
            if version >= 5 {
                assert!(response.topics[0].configs.as_ref().is_some_and(|c| c.iter().any(|c| c.name == "retention.ms")));
            }
        },
    )
    .await;
    count += versions::<create_partitions::CreatePartitionsRequest>(
        client,
        |version| {
            let topic =
                create_partitions::CreatePartitionsTopic { name: "created-7".into(), count: 2 + i32::from(version), assignments: None };
            create_partitions::CreatePartitionsRequest { topics: vec![topic], ..Default::default() }
        },
        |_, response| fine(response.results[0].error_code),
    )
    .await;
    count += versions::<delete_topics::DeleteTopicsRequest>(
        client,
        |version| {
            let name = format!("created-{}", version + 1);
            let state = delete_topics::DeleteTopicState { name: Some(name.clone()), ..Default::default() };
            if version >= 6 {
                delete_topics::DeleteTopicsRequest { topics: vec![state], ..Default::default() }
            } else {
                delete_topics::DeleteTopicsRequest { topic_names: vec![name], ..Default::default() }
            }
        },
        |_, response| fine(response.responses[0].error_code),
    )
    .await;
    count += versions::<init_producer_id::InitProducerIdRequest>(
        client,
        |_| init_producer_id::InitProducerIdRequest { transactional_id: None, ..Default::default() },
        |_, response| {
            fine(response.error_code);
            assert!(response.producer_id >= 0);
        },
    )
    .await;
    count += versions::<describe_configs::DescribeConfigsRequest>(
        client,
        |_| {
            let resource = |resource_type, name: &str| describe_configs::DescribeConfigsResource {
                resource_type,
                resource_name: name.into(),
                configuration_keys: None,
            };
            describe_configs::DescribeConfigsRequest {
                resources: vec![resource(2, "t"), resource(4, "1")],
                include_synonyms: true,
                include_documentation: true,
            }
        },
        |_, response| {
            for result in &response.results {
                fine(result.error_code);
                assert!(result.configs.len() > 30);
            }
        },
    )
    .await;
    count += versions::<describe_cluster::DescribeClusterRequest>(
        client,
        |_| describe_cluster::DescribeClusterRequest::default(),
        |_, response| {
            fine(response.error_code);
            assert_eq!(response.brokers.len(), 1);
        },
    )
    .await;
    count += administration(client).await;
    count += transactions(client).await;
    let advertised: usize = SERVED.iter().map(|s| (s.max - s.min + 1) as usize).sum();
    assert_eq!(count, advertised, "each advertised version was asked for");
    broker.stop().await.unwrap();
}

/// The APIs of transactions: each version with an id of its own.
async fn transactions(client: &mut Client) -> usize {
    let fine = |code: i16| assert_eq!(code, 0, "{:?}", ErrorCode::from_code(code));
    let find = find_coordinator::FindCoordinatorRequest { key_type: 1, coordinator_keys: vec!["x".into()], ..Default::default() };
    fine(client.call(&find, 4).await.coordinators[0].error_code);
    let mut producers = Vec::new();
    for number in 0..6 {
        let request = init_request(&format!("id-{number}"), 60_000, None);
        let answer = client.call(&request, 5).await;
        fine(answer.error_code);
        producers.push(Identity::new(answer.producer_id, answer.producer_epoch));
    }
    let id = |version: i16| format!("id-{version}");
    let of = |version: i16| producers[version as usize];
    let mut count = versions::<add_partitions_to_txn::AddPartitionsToTxnRequest>(
        client,
        |version| {
            let old = add_partitions_request(&id(version), of(version), "t", &[0]);
            if version < 4 {
                return old;
            }
            let transaction = add_partitions_to_txn::AddPartitionsToTxnTransaction {
                transactional_id: id(version),
                producer_id: of(version).id.0,
                producer_epoch: of(version).epoch.0,
                verify_only: false,
                topics: old.v3_and_below_topics,
            };
            add_partitions_to_txn::AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() }
        },
        |version, response| {
            let results = match version {
                ..4 => &response.results_by_topic_v3_and_below,
                _ => &response.results_by_transaction[0].topic_results,
            };
            fine(results[0].results_by_partition[0].partition_error_code);
        },
    )
    .await;
    count += versions::<add_offsets_to_txn::AddOffsetsToTxnRequest>(
        client,
        |version| add_offsets_request(&id(version), of(version), "g"),
        |_, response| fine(response.error_code),
    )
    .await;
    count += versions::<txn_offset_commit::TxnOffsetCommitRequest>(
        client,
        |version| offsets_request(&id(version), of(version), "g", "t", &[(0, 1)]),
        |_, response| fine(response.topics[0].partitions[0].error_code),
    )
    .await;
    count += versions::<describe_transactions::DescribeTransactionsRequest>(
        client,
        |version| describe_transactions::DescribeTransactionsRequest { transactional_ids: vec![id(version)] },
        |_, response| {
            fine(response.transaction_states[0].error_code);
            assert_eq!(response.transaction_states[0].transaction_state, "Ongoing");
            assert_eq!(response.transaction_states[0].topics.len(), 2);
        },
    )
    .await;
    count += versions::<list_transactions::ListTransactionsRequest>(
        client,
        |_| list_transactions::ListTransactionsRequest::default(),
        |_, response| {
            fine(response.error_code);
            assert_eq!(response.transaction_states.len(), 6);
        },
    )
    .await;
    count += versions::<end_txn::EndTxnRequest>(
        client,
        |version| end_request(&id(version), of(version), dlog::records::TransactionResult::Commit),
        |version, response| {
            fine(response.error_code);
            assert_eq!(response.producer_id >= 0, version >= 5);
        },
    )
    .await;
    count += versions::<write_txn_markers::WriteTxnMarkersRequest>(
        client,
        |version| {
            let topic = write_txn_markers::WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![1] };
            let producer_epoch = of(version).epoch.0;
            let marker = write_txn_markers::WritableTxnMarker {
                producer_id: of(version).id.0,
                producer_epoch,
                topics: vec![topic],
                ..Default::default()
            };
            write_txn_markers::WriteTxnMarkersRequest { markers: vec![marker] }
        },
        |_, response| fine(response.markers[0].topics[0].partitions[0].error_code),
    )
    .await;
    count += versions::<update_features::UpdateFeaturesRequest>(
        client,
        |_| {
            let update =
                update_features::FeatureUpdateKey { feature: "transaction.version".into(), max_version_level: 2, ..Default::default() };
            update_features::UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() }
        },
        |version, response| {
            fine(response.error_code);
            assert_eq!(response.results.len(), usize::from(version < 2));
        },
    )
    .await;
    count
}

/// The APIs of administration, on topic `t` and group `g`.
async fn administration(client: &mut Client) -> usize {
    let fine = |code: i16| assert_eq!(code, 0, "{:?}", ErrorCode::from_code(code));
    let mut count = versions::<delete_records::DeleteRecordsRequest>(
        client,
        |version| {
            let partition = delete_records::DeleteRecordsPartition { partition_index: 0, offset: i64::from(version) };
            let topic = delete_records::DeleteRecordsTopic { name: "t".into(), partitions: vec![partition] };
            delete_records::DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 }
        },
        |version, response| {
            fine(response.topics[0].partitions[0].error_code);
            assert_eq!(response.topics[0].partitions[0].low_watermark, i64::from(version));
        },
    )
    .await;
    count += versions::<alter_configs::AlterConfigsRequest>(
        client,
        |_| {
            let config = alter_configs::AlterableConfig { name: "retention.ms".into(), value: Some("5".into()) };
            let resource = alter_configs::AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs: vec![config] };
            alter_configs::AlterConfigsRequest { resources: vec![resource], validate_only: true }
        },
        |_, response| fine(response.responses[0].error_code),
    )
    .await;
    count += versions::<incremental_alter_configs::IncrementalAlterConfigsRequest>(
        client,
        |_| {
            let config = incremental_alter_configs::AlterableConfig { name: "retention.ms".into(), config_operation: 1, value: None };
            let resource =
                incremental_alter_configs::AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs: vec![config] };
            incremental_alter_configs::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true }
        },
        |_, response| fine(response.responses[0].error_code),
    )
    .await;
    count += versions::<describe_log_dirs::DescribeLogDirsRequest>(
        client,
        |_| {
            let topic = describe_log_dirs::DescribableLogDirTopic { topic: "t".into(), partitions: vec![0] };
            describe_log_dirs::DescribeLogDirsRequest { topics: Some(vec![topic]) }
        },
        |version, response| {
            let result = &response.results[0];
            fine(result.error_code);
            assert!(result.topics[0].partitions[0].partition_size > 0);
            assert!(version < 4 || result.total_bytes >= result.usable_bytes && result.usable_bytes > 0);
        },
    )
    .await;
    count += versions::<list_config_resources::ListConfigResourcesRequest>(
        client,
        |_| Default::default(),
        |version, response| {
            fine(response.error_code);
            assert_eq!(response.config_resources.iter().any(|r| r.resource_name == "t" && r.resource_type == 2), version >= 1);
        },
    )
    .await;
    count += versions::<delete_groups::DeleteGroupsRequest>(
        client,
        |_| delete_groups::DeleteGroupsRequest { groups_names: vec!["nobody".into()] },
        |_, response| assert_eq!(response.results[0].error_code, ErrorCode::GroupIdNotFound.code()),
    )
    .await;
    count += versions::<elect_leaders::ElectLeadersRequest>(
        client,
        |_| {
            let partitions = elect_leaders::TopicPartitions { topic: "t".into(), partitions: vec![0] };
            elect_leaders::ElectLeadersRequest { topic_partitions: Some(vec![partitions]), ..Default::default() }
        },
        |_, response| {
            fine(response.error_code);
            let result = &response.replica_election_results[0].partition_result[0];
            assert_eq!(result.error_code, ErrorCode::ElectionNotNeeded.code());
        },
    )
    .await;
    count += versions::<list_partition_reassignments::ListPartitionReassignmentsRequest>(
        client,
        |_| Default::default(),
        |_, response| {
            fine(response.error_code);
            assert_eq!(response.topics.len(), 0);
        },
    )
    .await;
    count += versions::<consumer_group_heartbeat::ConsumerGroupHeartbeatRequest>(
        client,
        |_| consumer_group_heartbeat::ConsumerGroupHeartbeatRequest { group_id: "g".into(), ..Default::default() },
        |_, answer| {
            // Such groups are not served: this answer makes clients fail at once.
            assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
            assert!(answer.error_message.as_deref().unwrap_or_default().contains("group.protocol=classic"));
        },
    )
    .await;
    count += versions::<offset_delete::OffsetDeleteRequest>(
        client,
        |_| {
            let partition = offset_delete::OffsetDeleteRequestPartition { partition_index: 0 };
            let topic = offset_delete::OffsetDeleteRequestTopic { name: "t".into(), partitions: vec![partition] };
            offset_delete::OffsetDeleteRequest { group_id: "g".into(), topics: vec![topic] }
        },
        |_, response| {
            fine(response.error_code);
            fine(response.topics[0].partitions[0].error_code);
        },
    )
    .await;
    // As Kafka answers on a listener without authentication.
    count += versions::<sasl_handshake::SaslHandshakeRequest>(
        client,
        |_| sasl_handshake::SaslHandshakeRequest { mechanism: "PLAIN".into() },
        |_, response| assert_eq!((response.error_code, response.mechanisms.len()), (ErrorCode::IllegalSaslState.code(), 0)),
    )
    .await;
    count += versions::<sasl_authenticate::SaslAuthenticateRequest>(
        client,
        |_| sasl_authenticate::SaslAuthenticateRequest { auth_bytes: Bytes::from_static(b"\0user\0password") },
        |_, response| assert_eq!(response.error_code, ErrorCode::IllegalSaslState.code()),
    )
    .await;
    count += versions::<describe_quorum::DescribeQuorumRequest>(
        client,
        |_| {
            let partitions = vec![describe_quorum::PartitionRequest { partition_index: 0 }];
            let topic = describe_quorum::TopicRequest { topic_name: "__cluster_metadata".into(), partitions };
            describe_quorum::DescribeQuorumRequest { topics: vec![topic] }
        },
        |version, response| {
            let quorum = &response.topics[0].partitions[0];
            fine(response.error_code);
            fine(quorum.error_code);
            let voters: Vec<(i32, bool)> = quorum.current_voters.iter().map(|v| (v.replica_id, v.last_fetch_timestamp > 0)).collect();
            assert_eq!(voters, [(quorum.leader_id, version > 0)], "version {version}");
            assert!(quorum.leader_epoch > 0 && quorum.high_watermark > 1, "{quorum:?}");
            assert_eq!(quorum.current_voters[0].log_end_offset, quorum.high_watermark);
            assert_eq!(response.nodes.len(), usize::from(version > 1));
        },
    )
    .await;
    count += versions::<describe_producers::DescribeProducersRequest>(
        client,
        |_| {
            let topic = describe_producers::TopicRequest { name: "t".into(), partition_indexes: vec![0] };
            describe_producers::DescribeProducersRequest { topics: vec![topic] }
        },
        |_, response| fine(response.topics[0].partitions[0].error_code),
    )
    .await;
    count
        + versions::<describe_topic_partitions::DescribeTopicPartitionsRequest>(
            client,
            |_| {
                let topic = describe_topic_partitions::TopicRequest { name: "t".into() };
                describe_topic_partitions::DescribeTopicPartitionsRequest { topics: vec![topic], ..Default::default() }
            },
            |_, response| {
                fine(response.topics[0].error_code);
                assert_eq!(response.topics[0].partitions.len(), 2);
            },
        )
        .await
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let request = api_versions::ApiVersionsRequest::default();
    client.send(&request, 5).await;
    let (_, response) = client.receive::<api_versions::ApiVersionsRequest>(0).await;
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
    assert_eq!(response.api_keys.len(), 1);
    assert_eq!((response.api_keys[0].api_key, response.api_keys[0].max_version), (18, 4));
    let versions = client.call(&api_versions::ApiVersionsRequest { client_software_name: "a b".into(), ..request }, 3).await;
    assert_eq!(versions.error_code, ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn what_is_not_offered_closes_that_connection_alone() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut good = Client::connect(&broker).await;
    let request = produce_request("t", 0, &batch(), 1);
    let mut frames: Vec<Vec<u8>> = vec![
        encode_request(&request, 3, 1, "x").to_vec(),
        vec![],
        vec![0, 0],
        vec![0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        vec![0, 24, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        vec![0, 3, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    ];
    frames[0][3] = 2; // Produce version 2 is advertised for old librdkafka, and not served.
    // Metadata names topics by name alone before version 10: null is no name.
    let nameless = metadata::MetadataRequestTopic { name: None, ..Default::default() };
    frames.push(encode_request(&metadata::MetadataRequest { topics: Some(vec![nameless]), ..Default::default() }, 4, 1, "x").to_vec());
    for frame in &frames {
        let mut bad = Client::connect(&broker).await;
        bad.send_frame(frame).await;
        assert_eq!(bad.frame().await, None, "{frame:?}");
    }
    for length in [-1_i32, i32::MIN, i32::MAX, 104_857_601] {
        let mut bad = Client::connect(&broker).await;
        bad.send_raw(&length.to_be_bytes()).await;
        assert_eq!(bad.frame().await, None, "{length}");
    }
    let answer = good.call(&metadata::MetadataRequest { topics: Some(vec![]), ..Default::default() }, 12).await;
    assert_eq!(answer.topics.len(), 0);
    assert_eq!(ApiKey::ALL.len(), 45);
    assert_eq!(metadata::MetadataRequest::MAX_VERSION, 13);
}
