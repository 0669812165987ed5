//! DescribeConfigs: returns the settings of topics and of this broker, with their sources.

use std::collections::BTreeMap;

use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::cluster::MetadataImage;
use crate::model::is_legal_topic_name;
use crate::partition::{Kind, SETTINGS, Setting, dynamic_setting};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use crate::server::dispatch::Call;
use crate::server::services::{BrokerSetting, Services, SettingSource};

/// A value of a setting, and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) name: &'static str,
    pub(super) value: Option<String>,
    pub(super) source: SettingSource,
}

/// A topic's setting: the effective value, then the values that would apply without it, in this order; the setting's own default comes after them.
pub(super) struct InForce {
    pub(super) setting: &'static Setting,
    pub(super) layers: Vec<Layer>,
}

impl InForce {
    pub(super) fn value(&self) -> Option<String> {
        Some(self.in_force().map_or(self.setting.default.to_string(), |(value, _)| value))
    }

    pub(super) fn source(&self) -> SettingSource {
        self.in_force().map_or(SettingSource::Default, |(_, source)| source)
    }

    fn in_force(&self) -> Option<(String, SettingSource)> {
        self.layers.iter().find_map(|layer| Some((layer.value.clone()?, layer.source)))
    }
}

/// All settings of a topic that has these own settings.
pub(super) fn topic_settings(services: &Services, own: &BTreeMap<String, String>) -> Vec<InForce> {
    let image = services.cluster.image();
    let of_setting = |setting: &'static Setting| {
        let own = own.get(setting.name).map(|value| Layer { name: setting.name, value: Some(value.clone()), source: SettingSource::Topic });
        let broker = services.settings.broker.iter().find(|b| b.name == setting.broker_synonym && !b.name.is_empty());
        let above = broker.map(|broker| broker_layers(services, &image, broker));
        InForce { setting, layers: own.into_iter().chain(above.into_iter().flatten()).collect() }
    };
    SETTINGS.iter().map(of_setting).collect()
}

/// A broker setting's values: dynamic for this broker, dynamic for all brokers, static, Kafka's default.
fn broker_layers(services: &Services, image: &MetadataImage, setting: &BrokerSetting) -> Vec<Layer> {
    let name = setting.name;
    let dynamic = [(services.node_id.to_string(), SettingSource::DynamicBroker), (String::new(), SettingSource::DynamicDefault)];
    let dynamic = dynamic.into_iter().filter_map(|(broker, source)| {
        let value = image.broker_configs(&broker)?.get(name)?;
        Some(Layer { name, value: Some(value.clone()), source })
    });
    let set =
        (setting.source == SettingSource::Static).then(|| Layer { name, value: setting.value.clone(), source: SettingSource::Static });
    let default = Layer { name, value: setting.default.clone(), source: SettingSource::Default };
    dynamic.chain(set).chain([default]).collect()
}

pub(in crate::server) async fn handle(call: Call<DescribeConfigsRequest>) -> DescribeConfigsResponse {
    let known = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let unknown = call.request.resources.iter().map(|resource| resource.resource_type).find(|kind| !known.contains(kind));
    let results = call.request.resources.iter().map(|resource| {
        // As in Kafka, an unknown type rejects the whole request.
        let described = match &unknown {
            Some(kind) => Err((ErrorCode::InvalidRequest, format!("Unexpected resource type {kind}"))),
            None => describe(&call, resource),
        };
        let (error, error_message, configs) = match described {
            Ok(configs) => (ErrorCode::None, None, configs),
            Err((error, message)) => (error, Some(message), Vec::new()),
        };
        DescribeConfigsResult {
            error_code: error.code(),
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs,
        }
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

fn describe(
    call: &Call<DescribeConfigsRequest>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    let services = &call.caller.services;
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    let wanted = |name: &str| keys.is_none_or(|keys| keys.iter().any(|key| key == name));
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC if !is_legal_topic_name(name) => Err((ErrorCode::InvalidTopicException, "The topic name is invalid.".into())),
        TOPIC => {
            let image = services.cluster.image();
            let topic =
                image.topic(name).ok_or((ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.".into()))?;
            let settings = topic_settings(services, &topic.configs);
            Ok(settings.iter().filter(|s| wanted(s.setting.name)).map(|s| topic_result(call, s)).collect())
        }
        BROKER | BROKER_LOGGER if !name.is_empty() && name.parse() != Ok(services.node_id) => {
            Err((ErrorCode::InvalidRequest, format!("Unexpected broker id, expected {}, but received {name}", services.node_id)))
        }
        // For the whole cluster, only dynamically changed settings are returned.
        BROKER if name.is_empty() => {
            let image = services.cluster.image();
            let changed = image.broker_configs("").into_iter().flatten().filter(|(name, _)| wanted(name));
            let setting = |name: &str| services.settings.broker.iter().find(|s| s.name == name);
            let result = |(name, value): (&String, &String)| {
                let setting = setting(name)?;
                let layer = Layer { name: setting.name, value: Some(value.clone()), source: SettingSource::DynamicDefault };
                Some(broker_result(call, setting, vec![layer]))
            };
            Ok(changed.filter_map(result).collect())
        }
        BROKER => {
            let image = services.cluster.image();
            let shown = services.settings.broker.iter().filter(|s| wanted(s.name));
            Ok(shown.map(|s| broker_result(call, s, broker_layers(services, &image, s))).collect())
        }
        BROKER_LOGGER | CLIENT_METRICS | GROUP => Ok(Vec::new()),
        other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

fn topic_result(call: &Call<DescribeConfigsRequest>, s: &InForce) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: s.setting.name.into(),
        value: s.value(),
        config_source: s.source() as i8,
        synonyms: synonyms(call, &s.layers),
        config_type: type_code(s.setting.kind),
        documentation: call.request.include_documentation.then(|| s.setting.doc.to_string()),
        ..Default::default()
    }
}

fn broker_result(call: &Call<DescribeConfigsRequest>, s: &BrokerSetting, layers: Vec<Layer>) -> DescribeConfigsResourceResult {
    // A password is never returned: its value is null in every layer.
    let is_sensitive = s.kind == Kind::Password;
    let mut layers = layers;
    if is_sensitive {
        layers.iter_mut().for_each(|layer| layer.value = None);
    }
    DescribeConfigsResourceResult {
        is_sensitive,
        name: s.name.into(),
        value: layers.first().and_then(|layer| layer.value.clone()),
        read_only: dynamic_setting(s.name).is_none(),
        config_source: layers.first().map_or(SettingSource::Default, |layer| layer.source) as i8,
        synonyms: synonyms(call, &layers),
        config_type: type_code(s.kind),
        documentation: call.request.include_documentation.then(|| s.doc.to_string()),
    }
}

fn synonyms(call: &Call<DescribeConfigsRequest>, layers: &[Layer]) -> Vec<DescribeConfigsSynonym> {
    let shown = layers.iter().filter(|layer| call.request.include_synonyms && layer.value.is_some());
    shown.map(|l| DescribeConfigsSynonym { name: l.name.into(), value: l.value.clone(), source: l.source as i8 }).collect()
}

fn type_code(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::String => 2,
        Kind::Int => 3,
        Kind::Short => 4,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
        Kind::Class => 8,
        Kind::Password => 9,
    }
}
